"""Image files byte by byte: what they announce, counted before any of it is decoded, and what is needed of them."""
