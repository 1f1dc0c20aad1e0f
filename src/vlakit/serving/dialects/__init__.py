"""One file a dialect: how its clients ask, how they want to be answered, and how they hear of an error."""
