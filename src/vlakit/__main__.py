"""`python -m vlakit VERB ...` is `vlakit VERB ...`."""

from vlakit.cli.app import main

if __name__ == "__main__":
    main()
