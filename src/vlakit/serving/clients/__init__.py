"""The other side of a dialect, one file each: connections on which vlakit itself asks a server, anybody's."""
