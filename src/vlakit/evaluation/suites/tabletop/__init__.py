"""A small MuJoCo tabletop: language-conditioned tasks for robots, cameras and tables that are data."""
