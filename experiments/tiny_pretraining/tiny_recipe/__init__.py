"""The shipped model's recipe before it acts: towers that see and a language model that says what lies where.

To vlakit it is what a user's own code is: reached by `_target_` from conf/ beside it, built on vlakit's public parts.
"""
