"""A flight followed from photo to photo: filter, tracks, and where they are kept."""
