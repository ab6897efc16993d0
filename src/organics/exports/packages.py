"""Packages that only exports need."""

import importlib.util


def require(format: str, *packages: str) -> None:
    """Raises `ValueError`, naming the format, if one of its packages is missing."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"`format` {format} needs the package {package}: pip install 'organics[export]'."
            )
