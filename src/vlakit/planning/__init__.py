"""A language model says what would be useful, values say what is possible, a policy carries it out (SayCan)."""
