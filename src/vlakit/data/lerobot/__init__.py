"""LeRobot datasets in and out, without the lerobot package, which cannot live in this environment."""
