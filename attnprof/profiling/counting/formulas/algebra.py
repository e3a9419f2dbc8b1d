"""Dense linear algebra and Fourier transforms, by textbook formulas."""

from __future__ import annotations

from math import ceil, log2, prod
from typing import Any

from attnprof.profiling.counting.formulas import NOTHING, Args, Cost, Kwargs, Rule, argument, first

# Linear algebra of n x n or m x n matrices: textbook leading terms (Golub, Van Loan), all in flops, no macs ----------------


def _matrices(tensor: Any) -> tuple[int, int, int]:
    """Number of matrices, rows m, columns n; m >= n."""
    m, n = tensor.shape[-2:]
    return int(tensor.numel() // max(m * n, 1)), max(m, n), min(m, n)


def cubic(thirds: int) -> Rule:
    """Cost `thirds` / 3 * n^3 per matrix, rounded up."""

    def rule(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
        batch, n, _ = _matrices(args[0])
        return Cost(0, -(-batch * thirds * n**3 // 3))

    return rule


def solve(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """LU 2/3 n^3 and 2 n^2 per right-hand side."""
    batch, n, _ = _matrices(args[0])
    return Cost(0, -(-batch * 2 * n**3 // 3) + 2 * n * first(out).numel())


def substitute(amount: int, index: int) -> Rule:
    """Triangular solves: `amount` * n per element of the result, n the size of the matrix at `index`."""

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        return Cost(0, amount * args[index].shape[-1] * first(out).numel())

    return rule


def eigh(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Symmetric: 9 n^3 with vectors, 4/3 n^3 without."""
    batch, n, _ = _matrices(args[0])
    return Cost(0, batch * 9 * n**3 if argument(args, 2, True) else -(-batch * 4 * n**3 // 3))


def svd(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """U, S, V: 6 m n^2 + 20 n^3 (m >= n); S alone: 2 m n^2 + 2 n^3."""
    batch, m, n = _matrices(args[0])
    return Cost(0, batch * (6 * m * n**2 + 20 * n**3 if argument(args, 2, True) else 2 * m * n**2 + 2 * n**3))


def pinv(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Through the SVD, and the product V S^-1 U^T: n m n, m >= n."""
    batch, m, n = _matrices(args[0])
    return Cost(0, batch * (8 * m * n**2 + 20 * n**3))


def reflect(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
    """ormqr(a, tau, other): k reflectors, 4 per element of the result each."""
    return Cost(0, 4 * args[1].shape[-1] * out.numel())


def lu(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Gauss: m n^2 - n^3 / 3, rounded up (2/3 n^3 when square)."""
    batch, m, n = _matrices(args[0])
    return Cost(0, -(-batch * (3 * m * n**2 - n**3) // 3))


def qr(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """R: 2 m n^2 - 2/3 n^3, rounded up; Q as much again (mode r: none; complete counts as reduced)."""
    batch, m, n = _matrices(args[0])
    times = 1 if argument(args, 1, "reduced") == "r" else 2
    return Cost(0, -(-batch * times * (6 * m * n**2 - 2 * n**3) // 3))


def lstsq(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """QR without Q, then Q^T b 4 m n and back substitution n^2 per right-hand side."""
    batch, m, n = _matrices(args[0])
    columns = args[1].numel() // max(m * batch, 1)
    return Cost(0, -(-batch * (6 * m * n**2 - 2 * n**3) // 3) + batch * columns * (4 * m * n + n * n))


def householder(args: Args, _kwargs: Kwargs, _out: Any) -> Cost:
    """Q from reflectors: 2 m n^2 - 2/3 n^3."""
    batch, m, n = _matrices(args[0])
    return Cost(0, -(-batch * (6 * m * n**2 - 2 * n**3) // 3))


# Fourier --------------------------------------------------------------------------------------------------------------------


def fft(real: bool) -> Rule:
    """5 N log2 N per transform of N = product of the transformed axes (half for real input or output), rounded up.

    Scaling is one product per real number of the result where it is asked for (normalization is not 0).
    """

    def rule(args: Args, _kwargs: Kwargs, out: Any) -> Cost:
        large = args[0] if args[0].numel() > out.numel() else out
        if real:
            large = out if args[0].is_complex() else args[0]
        size = prod(large.shape[axis] for axis in args[1])
        if size == 0:
            return NOTHING
        flops = ceil((2.5 if real else 5.0) * large.numel() * log2(size))
        scaled = out.numel() * (2 if out.is_complex() else 1) if args[2] != 0 else 0
        return Cost(0, flops + scaled)

    return rule


ROWS: tuple[tuple[Rule, str], ...] = (
    (cubic(1), "cholesky linalg_cholesky_ex linalg_ldl_factor_ex"),
    (cubic(2), "cholesky_inverse _linalg_det _linalg_slogdet"),
    (substitute(2, 1), "cholesky_solve _cholesky_solve_helper"),
    (cubic(6), "linalg_inv_ex"),
    (cubic(75), "linalg_eig"),
    (cubic(30), "_linalg_eigvals linalg_matrix_exp"),
    (eigh, "_linalg_eigh"),
    (substitute(2, 0), "linalg_ldl_solve linalg_lu_solve"),
    (lu, "linalg_lu linalg_lu_factor_ex"),
    (solve, "_linalg_solve_ex"),
    (substitute(1, 0), "linalg_solve_triangular"),
    (substitute(1, 1), "triangular_solve"),
    (svd, "_linalg_svd"),
    (pinv, "linalg_pinv"),
    (qr, "linalg_qr"),
    (householder, "geqrf linalg_householder_product"),
    (reflect, "ormqr"),
    (lstsq, "linalg_lstsq"),
    (fft(real=False), "_fft_c2c"),
    (fft(real=True), "_fft_r2c _fft_c2r"),
)
