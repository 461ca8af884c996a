"""A ROS 2 node that publishes aerofix's fixes as ``sensor_msgs/NavSatFix``. An example: it has not been run here.

It asks a running service (``aerofix serve``) about the pictures of a camera topic, one at a time, and is silent while
the place is not known. Not for flight control: aerofix has not been certified, or flown.

    ros2 run … or: python3 examples/ros2_fixes.py --ros-args -p url:=http://127.0.0.1:8000 -p image:=/camera/compressed

It needs rclpy and sensor_msgs, which come with ROS 2, and aerofix in the same environment.
"""

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, NavSatFix, NavSatStatus

from aerofix import AerofixError, Client, ServiceError
from aerofix.bridge.solution import Solution, solve


class Fixes(Node):
    """Locates each picture that comes while none is worked on, and publishes where it was taken from."""

    def __init__(self) -> None:
        """Connect to the service and open a track."""
        super().__init__("aerofix")
        url = self.declare_parameter("url", "http://127.0.0.1:8000").value
        topic = self.declare_parameter("image", "/camera/compressed").value
        self.elevation_m = self.declare_parameter("ground_elevation_m", float("nan")).value
        self.client = Client(url)
        self.track_id = self.client.open_track().id
        self.fixes = self.create_publisher(NavSatFix, "~/fix", 10)
        self.create_subscription(CompressedImage, topic, self.locate, 1)  # a queue of one: the newest picture

    def locate(self, image: CompressedImage) -> None:
        """Ask about a picture, and publish its fix if it has one."""
        time_s = image.header.stamp.sec + image.header.stamp.nanosec / 1e9
        try:
            step = self.client.track_photo(self.track_id, bytes(image.data), time_s, effort="fast")
        except AerofixError as error:
            self.get_logger().warning(error.detail)
            if isinstance(error, ServiceError) and error.kind == "track-not-found":
                self.track_id = self.client.open_track().id
            return
        elevation_m = None if self.elevation_m != self.elevation_m else self.elevation_m
        solution = solve(step, time_s, elevation_m, first=True)  # NavSatFix has no place for a speed
        if isinstance(solution, Solution):
            self.fixes.publish(self.message(image, solution))
        else:
            self.get_logger().info(f"silent: {solution}")

    def message(self, image: CompressedImage, solution: Solution) -> NavSatFix:
        """A solution as the message of a satellite receiver; the covariance is of east, north and up."""
        down = solution.sigma_down_m
        fix = NavSatFix()
        fix.header = image.header
        fix.status.status, fix.status.service = NavSatStatus.STATUS_FIX, NavSatStatus.SERVICE_GPS
        fix.latitude, fix.longitude = solution.lat, solution.lon
        fix.altitude = float("nan") if solution.altitude_m is None else solution.altitude_m
        variances = [solution.sigma_m**2, solution.sigma_m**2, 1e6 if down is None else down**2]
        fix.position_covariance = [variances[i] if i == j else 0.0 for i in range(3) for j in range(3)]
        fix.position_covariance_type = NavSatFix.COVARIANCE_TYPE_DIAGONAL_KNOWN
        return fix


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = Fixes()
    try:
        rclpy.spin(node)
    finally:
        node.client.close()
        node.destroy_node()


if __name__ == "__main__":
    main()
