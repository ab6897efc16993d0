"""`organics info`"""

from dataclasses import dataclass

from organics.cli.answer import Answer


@dataclass(frozen=True)
class Info:
    """Versions of organics and its dependencies, and the devices it computes on.

    Example: organics info --json
    """

    json: bool = False
    """One JSON document on standard output."""

    def run(self) -> Answer:
        import os
        import platform
        from importlib.metadata import version

        import jax

        from organics import __version__
        from organics.cli.compiled import place
        from organics.kernels import library, native

        packages = ("jax", "jaxlib", "equinox", "diffrax", "optax", "numpy", "scipy")
        document = {
            "organics": __version__,
            "python": platform.python_version(),
            "packages": {name: version(name) for name in packages},
            "platform": f"{platform.system()} {platform.machine()}",
            "cores": os.cpu_count(),
            "backend": jax.default_backend(),
            "compiled_programs": os.environ.get("JAX_COMPILATION_CACHE_DIR") or place(),
            "native_kernel": native.instruction_set(),
            "native_kernel_lacking": native.unavailable() or library.left_out(),
            "devices": [
                f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()
            ],
        }
        text = [
            f"organics {__version__}, Python {document['python']}, {document['platform']}, "
            f"{document['cores']} cores",
            ", ".join(f"{name} {number}" for name, number in document["packages"].items()),
            "devices: " + ", ".join(document["devices"]),
            f"native kernel of the recurrent layer: {document['native_kernel'] or 'none'}"
            + (f" ({lacking})" if (lacking := document["native_kernel_lacking"]) else ""),
        ]
        kept = document["compiled_programs"]
        text.append(f"compiled programs are {f'kept in {kept}' if kept else 'not kept'}")
        return Answer(document, text)


COMMANDS = Info
