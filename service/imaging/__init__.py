"""Image files: decoding under limits, camera pose, the view that is searched."""
