"""vlakit: which way of fine-tuning a vision-language-action model is right for my robot, my data, my GPU?"""

__version__ = "0.1.0"
