"""The cache folder of this package."""

from pathlib import Path


def user_cache() -> Path | None:
    """The folder, in the user's cache; None for a user without a home, as in some containers."""
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("organics"))
    except RuntimeError:
        return None
