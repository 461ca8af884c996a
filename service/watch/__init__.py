"""What tells those who watch: health, metrics, traces."""
