"""AUTO-07p, a program in Fortran for the continuation of solutions, on a circuit over contrast.

It is not a Python package: unpack it, `./configure`, `make`, and set the variable `AUTO_DIR` to its
folder. The equations and both Jacobians are compiled once, for a number of neurons; a circuit is
read from a file.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from organics.circuit.circuit import Circuit

_EQUATIONS = """
MODULE circuit
  IMPLICIT NONE
  INTEGER, PARAMETER :: n = {n}
  DOUBLE PRECISION :: W(n, n), Wr(n, n), d(n), c(n), tau(2 * n)
CONTAINS
  SUBROUTINE load
    INTEGER :: unit
    OPEN(NEWUNIT=unit, FILE='circuit.dat', FORM='UNFORMATTED', ACCESS='STREAM', STATUS='OLD')
    READ(unit) W, Wr, d, c, tau
    CLOSE(unit)
  END SUBROUTINE load
END MODULE circuit

SUBROUTINE FUNC(NDIM, U, ICP, PAR, IJAC, F, DFDU, DFDP)
  USE circuit
  IMPLICIT NONE
  INTEGER :: NDIM, IJAC, ICP(*), i, j
  DOUBLE PRECISION :: U(NDIM), PAR(*), F(NDIM), DFDU(NDIM, NDIM), DFDP(NDIM, *)
  DOUBLE PRECISION :: y(n), a(n), s(n), r(n)
  y = U(1:n)
  a = U(n+1:2*n)
  s = SQRT(a)
  r = MATMUL(Wr, y)
  F(1:n) = -y + PAR(1) * d + (1 - s) * r
  F(n+1:2*n) = -a + c + MATMUL(W, y * y * a)
  F = F / tau
  IF (IJAC == 0) RETURN
  DFDU = 0
  DO j = 1, n
    DFDU(1:n, j) = (1 - s) * Wr(:, j)
    DFDU(n+1:2*n, j) = 2 * W(:, j) * y(j) * a(j)
    DFDU(n+1:2*n, n+j) = W(:, j) * y(j)**2
    DFDU(j, n+j) = -r(j) / (2 * s(j))
  END DO
  DO i = 1, 2 * n
    DFDU(i, i) = DFDU(i, i) - 1
    DFDU(i, :) = DFDU(i, :) / tau(i)
  END DO
  IF (IJAC == 1) RETURN
  DFDP(:, 1) = 0
  DFDP(1:n, 1) = d / tau(1:n)
END SUBROUTINE FUNC

SUBROUTINE STPNT(NDIM, U, PAR, T)
  USE circuit
  IMPLICIT NONE
  INTEGER :: NDIM
  DOUBLE PRECISION :: U(NDIM), PAR(*), T
  CALL load
  PAR(1) = 0
  U(1:n) = 0
  U(n+1:2*n) = c
END SUBROUTINE STPNT

SUBROUTINE BCND
END SUBROUTINE BCND
SUBROUTINE ICND
END SUBROUTINE ICND
SUBROUTINE FOPT
END SUBROUTINE FOPT
SUBROUTINE PVLS
END SUBROUTINE PVLS
"""

# lengths and step sizes are of AUTO's own measure; the accuracies are those of its manual's advice
# for precise work
_CONSTANTS = """
NDIM = {m}, IPS = 1, IRS = 0, ILP = 1
ICP = [1]
NTST = 1, NCOL = 4, IAD = 0, ISP = 1, ISW = 1, IPLT = 0, NBC = 0, NINT = 0
NMX = 5000, NPR = 0, MXBF = 0, IID = 0, ITMX = 20, ITNW = 7, NWTN = 3, JAC = 1
EPSL = 1e-10, EPSU = 1e-10, EPSS = 1e-9
DS = 0.01, DSMIN = 1e-6, DSMAX = 0.2, IADS = 1
NPAR = 1, THL = {{}}, THU = {{}}
RL0 = {low}, RL1 = {high}
"""

_KINDS = {2: "fold", 3: "hopf"}


class Auto:
    """AUTO in a folder of its own, for circuits of n neurons.

    Raises `FileNotFoundError` if there is no AUTO or no `gfortran`.
    """

    def __init__(self, folder: Path, n: int, bounds: tuple):
        source = os.environ.get("AUTO_DIR")
        objects = sorted(Path(source or "").glob("lib/*.o")) if source else []
        if not objects or shutil.which("gfortran") is None:
            raise FileNotFoundError("`AUTO_DIR` is no built AUTO-07p, or gfortran is missing")
        (folder / "circuit.f90").write_text(_EQUATIONS.format(n=n))
        low, high = bounds
        (folder / "fort.2").write_text(_CONSTANTS.format(m=2 * n, low=low - 1e-9, high=high))
        words = ["gfortran", "-O2", "-fopenmp", f"-I{source}/include", "circuit.f90"]
        subprocess.run([*words, *map(str, objects), "-o", "auto"], cwd=folder, check=True)
        self.folder = folder

    def follow(self, circuit: Circuit, z: Any) -> list[tuple[str, float]]:
        """The folds and Hopf points of the branch from rest, in order, with their contrast."""
        self.write(circuit, z)
        self.run()
        return self.events()

    def write(self, circuit: Circuit, z: Any) -> None:
        """Put the circuit where the program reads it."""
        arrays = [
            np.asarray(circuit.W).T, np.asarray(circuit.W_r).T, np.asarray(circuit.b * z),
            np.asarray(circuit.c), np.asarray(circuit.tau_y), np.asarray(circuit.tau_a),
        ]  # fmt: skip
        content = b"".join(np.ascontiguousarray(a, np.float64).tobytes() for a in arrays)
        (self.folder / "circuit.dat").write_bytes(content)

    def run(self) -> None:
        """Follow the branch of the circuit written last."""
        for name in ("fort.7", "fort.8", "fort.9"):
            (self.folder / name).unlink(missing_ok=True)
        alone = {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            ["./auto"], cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
            env=os.environ | alone,
        )  # fmt: skip

    def events(self) -> list[tuple[str, float]]:
        """Those of the last run."""
        found = []
        for line in (self.folder / "fort.7").read_text().splitlines():
            words = line.split()
            if words and words[0] != "0" and abs(int(words[2])) % 10 in _KINDS:
                found.append((_KINDS[abs(int(words[2])) % 10], float(words[4])))
        return found

    def reached(self) -> float:
        """The contrast at which the last run ended."""
        lines = (self.folder / "fort.7").read_text().splitlines()
        return float([line.split()[4] for line in lines if line.split()[0] != "0"][-1])
