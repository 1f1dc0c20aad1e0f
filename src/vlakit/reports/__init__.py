"""Tables for people, from recorded runs."""
