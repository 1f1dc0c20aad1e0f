"""`python -m vlakit VERB ...` is `vlakit VERB ...`."""

from vlakit.cli.app import console

if __name__ == "__main__":
    console()
