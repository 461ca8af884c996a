"""Photos that come out of videos, live streams and folders, with what the drone wrote beside them."""
