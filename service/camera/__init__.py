"""Where a camera looks: attitude, rays, looks at flat ground, and the pose that matches give. Geometry only, no I/O."""
