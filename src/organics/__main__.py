"""`python -m organics` is the `organics` command."""

from organics.cli import main

if __name__ == "__main__":
    main()
