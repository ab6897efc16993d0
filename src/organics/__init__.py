"""Provably stable recurrent circuits with divisive normalization (ORGaNICs).

One definition of the circuit, `Circuit`, seen through four lenses: simulate it, solve it for its
steady state, certify its stability, train it. Names are imported on first use, so that
`import organics` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from organics import baselines as baselines
    from organics import data as data
    from organics import fitting as fitting
    from organics import nn as nn
    from organics import plots as plots
    from organics import responses as responses
    from organics import training as training
    from organics.branches.continuation import continuation as continuation
    from organics.branches.continuation import continuations as continuations
    from organics.branches.waves import WaveOnsets as WaveOnsets
    from organics.branches.waves import wave_onsets as wave_onsets
    from organics.circuit.circuit import Circuit as Circuit
    from organics.circuit.circuit import FiringRates as FiringRates
    from organics.circuit.circuit import State as State
    from organics.circuit.circuit import random_drive as random_drive
    from organics.circuit.file import load_circuit as load_circuit
    from organics.circuit.file import save_circuit as save_circuit
    from organics.circuit.gated import GatedHierarchy as GatedHierarchy
    from organics.circuit.hierarchy import Hierarchy as Hierarchy
    from organics.circuit.weights import Convolution as Convolution
    from organics.circuit.weights import Diagonal as Diagonal
    from organics.circuit.weights import LowRank as LowRank
    from organics.circuit.weights import Weights as Weights
    from organics.enumeration.others import other_states as other_states
    from organics.enumeration.states import SteadyStates as SteadyStates
    from organics.enumeration.states import steady_states as steady_states
    from organics.linear.jacobian import jacobian as jacobian
    from organics.linear_stability.certificate import Certificate as Certificate
    from organics.linear_stability.certificate import certify as certify
    from organics.linear_stability.dispersion import Dispersion as Dispersion
    from organics.linear_stability.dispersion import dispersion as dispersion
    from organics.linear_stability.energy import energy as energy
    from organics.linear_stability.oscillator import oscillator as oscillator
    from organics.linear_stability.spectrum import Stability as Stability
    from organics.linear_stability.spectrum import largest_euler_step as largest_euler_step
    from organics.linear_stability.spectrum import stability as stability
    from organics.linear_stability.verification import verify as verify
    from organics.planar import fixed_points_2d as fixed_points_2d
    from organics.proofs.proof import Proof as Proof
    from organics.proofs.proof import prove as prove
    from organics.rest.closed_form import closed_form as closed_form
    from organics.rest.point import OperatingPoint as OperatingPoint
    from organics.rest.search import given_state as given_state
    from organics.rest.search import steady_state as steady_state
    from organics.shared_pool.principal import principal_state as principal_state
    from organics.simulation.noise import Noise as Noise
    from organics.simulation.noise import simulate_noisy as simulate_noisy
    from organics.simulation.ode import Trajectory as Trajectory
    from organics.simulation.ode import simulate as simulate
    from organics.spectra import coherence as coherence
    from organics.spectra import cross_spectrum as cross_spectrum
    from organics.spectra import power_spectrum as power_spectrum
    from organics.spectra import stationary_covariance as stationary_covariance
    from organics.subspaces import average_subspace as average_subspace
    from organics.subspaces import communication_subspace as communication_subspace
    from organics.subspaces import rate_covariance as rate_covariance
    from organics.training.fitted import load_run as load_run
    from organics.trials import run_trials as run_trials

_MODULES = ("baselines", "data", "fitting", "nn", "plots", "responses", "training")
_HOMES = {
    "branches.continuation": ("continuation", "continuations"),
    "branches.waves": ("WaveOnsets", "wave_onsets"),
    "circuit.circuit": ("Circuit", "FiringRates", "State", "random_drive"),
    "circuit.file": ("load_circuit", "save_circuit"),
    "circuit.gated": ("GatedHierarchy",),
    "circuit.hierarchy": ("Hierarchy",),
    "circuit.weights": ("Convolution", "Diagonal", "LowRank", "Weights"),
    "enumeration.others": ("other_states",),
    "enumeration.states": ("SteadyStates", "steady_states"),
    "linear.jacobian": ("jacobian",),
    "linear_stability.certificate": ("Certificate", "certify"),
    "linear_stability.dispersion": ("Dispersion", "dispersion"),
    "linear_stability.energy": ("energy",),
    "linear_stability.oscillator": ("oscillator",),
    "linear_stability.spectrum": ("Stability", "largest_euler_step", "stability"),
    "linear_stability.verification": ("verify",),
    "planar": ("fixed_points_2d",),
    "proofs.proof": ("Proof", "prove"),
    "rest.closed_form": ("closed_form",),
    "rest.point": ("OperatingPoint",),
    "rest.search": ("given_state", "steady_state"),
    "shared_pool.principal": ("principal_state",),
    "simulation.noise": ("Noise", "simulate_noisy"),
    "simulation.ode": ("Trajectory", "simulate"),
    "spectra": ("coherence", "cross_spectrum", "power_spectrum", "stationary_covariance"),
    "subspaces": ("average_subspace", "communication_subspace", "rate_covariance"),
    "training.fitted": ("load_run",),
    "trials": ("run_trials",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Certificate",
    "Circuit",
    "Convolution",
    "Diagonal",
    "Dispersion",
    "FiringRates",
    "GatedHierarchy",
    "Hierarchy",
    "LowRank",
    "Noise",
    "OperatingPoint",
    "Proof",
    "Stability",
    "State",
    "SteadyStates",
    "Trajectory",
    "WaveOnsets",
    "Weights",
    "average_subspace",
    "baselines",
    "certify",
    "closed_form",
    "coherence",
    "communication_subspace",
    "continuation",
    "continuations",
    "cross_spectrum",
    "data",
    "dispersion",
    "energy",
    "fitting",
    "fixed_points_2d",
    "given_state",
    "jacobian",
    "largest_euler_step",
    "load_circuit",
    "load_run",
    "nn",
    "oscillator",
    "other_states",
    "plots",
    "power_spectrum",
    "principal_state",
    "prove",
    "random_drive",
    "rate_covariance",
    "responses",
    "run_trials",
    "save_circuit",
    "simulate",
    "simulate_noisy",
    "stability",
    "stationary_covariance",
    "steady_state",
    "steady_states",
    "training",
    "verify",
    "wave_onsets",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("organics")
    if name in _MODULES:
        return import_module(f"organics.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'organics' has no attribute {name!r}")
    value = getattr(import_module(f"organics.{_HOME_OF[name]}"), name)
    globals()[name] = value  # also where a function shares its module's name
    return value


def __dir__() -> list[str]:
    return __all__
