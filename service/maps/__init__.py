"""What maps come as: rasters, pyramids, archives and tables, opened as one kind of source."""
