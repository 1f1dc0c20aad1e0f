"""Where preferences come from and what they lead to: rollouts in a suite, pairs of them, rounds, the chosen step."""
