"""RT-1: FiLM EfficientNet, TokenLearner and a transformer that predicts all action tokens of a step at once."""
