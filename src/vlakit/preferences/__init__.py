"""Learning from what a policy did itself: episodes from one start that won and lost, and losses over them."""
