"""Compiled loops of the deformable registration, each on one core: interpolation, its adjoint, moving sums."""

from __future__ import annotations

import numpy as np

from predictgbm.growth.compilation import serial_kernel


@serial_kernel
def sample(volume, x, y, z):  # type: ignore[no-untyped-def]
    """Interpolate channels (c, nx, ny, nz) linearly at voxel coordinates (n,), clamped to the grid; (c, n)."""
    channels, nx, ny, nz = volume.shape
    out = np.empty((channels, x.size), np.float32)
    for n in range(x.size):
        p = min(max(x[n], 0), nx - 1)
        q = min(max(y[n], 0), ny - 1)
        r = min(max(z[n], 0), nz - 1)
        i = min(int(p), nx - 2)
        j = min(int(q), ny - 2)
        k = min(int(r), nz - 2)
        a = np.float32(p - i)
        b = np.float32(q - j)
        c = np.float32(r - k)
        for m in range(channels):
            v = volume[m]
            v00 = v[i, j, k] + c * (v[i, j, k + 1] - v[i, j, k])
            v01 = v[i, j + 1, k] + c * (v[i, j + 1, k + 1] - v[i, j + 1, k])
            v10 = v[i + 1, j, k] + c * (v[i + 1, j, k + 1] - v[i + 1, j, k])
            v11 = v[i + 1, j + 1, k] + c * (v[i + 1, j + 1, k + 1] - v[i + 1, j + 1, k])
            v0 = v00 + b * (v01 - v00)
            v1 = v10 + b * (v11 - v10)
            out[m, n] = v0 + a * (v1 - v0)
    return out


@serial_kernel
def sample_vectors(field, x, y, z):  # type: ignore[no-untyped-def]
    """Interpolate a field (nx, ny, nz, 3) linearly at voxel coordinates (n,), clamped to the grid; float64 (n, 3)."""
    nx, ny, nz, _ = field.shape
    out = np.empty((x.size, 3), np.float64)
    for n in range(x.size):
        p = min(max(x[n], 0), nx - 1)
        q = min(max(y[n], 0), ny - 1)
        r = min(max(z[n], 0), nz - 1)
        i = min(int(p), nx - 2)
        j = min(int(q), ny - 2)
        k = min(int(r), nz - 2)
        a = p - i
        b = q - j
        c = r - k
        for m in range(3):
            v00 = field[i, j, k, m] * (1 - c) + field[i, j, k + 1, m] * c
            v01 = field[i, j + 1, k, m] * (1 - c) + field[i, j + 1, k + 1, m] * c
            v10 = field[i + 1, j, k, m] * (1 - c) + field[i + 1, j, k + 1, m] * c
            v11 = field[i + 1, j + 1, k, m] * (1 - c) + field[i + 1, j + 1, k + 1, m] * c
            out[n, m] = (v00 * (1 - b) + v01 * b) * (1 - a) + (v10 * (1 - b) + v11 * b) * a
    return out


@serial_kernel
def warp(image, u):  # type: ignore[no-untyped-def]
    """Interpolate an image at x + u(x), u (3, nx, ny, nz) in voxels: values, and their gradient as (3, ...)."""
    nx, ny, nz = image.shape
    value = np.empty(image.shape, np.float32)
    gradient = np.empty(u.shape, np.float32)
    one = np.float32(1)
    for i0 in range(nx):
        for j0 in range(ny):
            for k0 in range(nz):
                x = np.float32(i0) + u[0, i0, j0, k0]
                y = np.float32(j0) + u[1, i0, j0, k0]
                z = np.float32(k0) + u[2, i0, j0, k0]
                p = min(max(x, np.float32(0)), np.float32(nx - 1))
                q = min(max(y, np.float32(0)), np.float32(ny - 1))
                r = min(max(z, np.float32(0)), np.float32(nz - 1))
                i = min(int(p), nx - 2)
                j = min(int(q), ny - 2)
                k = min(int(r), nz - 2)
                a = p - np.float32(i)
                b = q - np.float32(j)
                c = r - np.float32(k)
                c000 = image[i, j, k]
                c001 = image[i, j, k + 1]
                c010 = image[i, j + 1, k]
                c011 = image[i, j + 1, k + 1]
                c100 = image[i + 1, j, k]
                c101 = image[i + 1, j, k + 1]
                c110 = image[i + 1, j + 1, k]
                c111 = image[i + 1, j + 1, k + 1]
                v00 = c000 + c * (c001 - c000)
                v01 = c010 + c * (c011 - c010)
                v10 = c100 + c * (c101 - c100)
                v11 = c110 + c * (c111 - c110)
                v0 = v00 + b * (v01 - v00)
                v1 = v10 + b * (v11 - v10)
                value[i0, j0, k0] = v0 + a * (v1 - v0)
                # Beyond the edge the image is constant along that axis.
                gradient[0, i0, j0, k0] = v1 - v0 if p == x else 0
                dy = (one - a) * (v01 - v00) + a * (v11 - v10)
                gradient[1, i0, j0, k0] = dy if q == y else 0
                dz0 = (one - b) * (c001 - c000) + b * (c011 - c010)
                dz1 = (one - b) * (c101 - c100) + b * (c111 - c110)
                gradient[2, i0, j0, k0] = (one - a) * dz0 + a * dz1 if r == z else 0
    return value, gradient


@serial_kernel
def inverse_consistency(u, v, weight):  # type: ignore[no-untyped-def]
    """Return sum of weight |u(x) + v(x + u(x))|^2 and its derivatives by u and by v (all in voxels)."""
    _, nx, ny, nz = u.shape
    by_u = np.zeros(u.shape, np.float32)
    by_v = np.zeros(v.shape, np.float32)
    one = np.float32(1)
    total = 0.0
    for i0 in range(nx):
        for j0 in range(ny):
            for k0 in range(nz):
                w = weight[i0, j0, k0]
                if w == 0:
                    continue
                x = np.float32(i0) + u[0, i0, j0, k0]
                y = np.float32(j0) + u[1, i0, j0, k0]
                z = np.float32(k0) + u[2, i0, j0, k0]
                p = min(max(x, np.float32(0)), np.float32(nx - 1))
                q = min(max(y, np.float32(0)), np.float32(ny - 1))
                r = min(max(z, np.float32(0)), np.float32(nz - 1))
                i = min(int(p), nx - 2)
                j = min(int(q), ny - 2)
                k = min(int(r), nz - 2)
                a = p - np.float32(i)
                b = q - np.float32(j)
                c = r - np.float32(k)
                w000 = (one - a) * (one - b) * (one - c)
                w001 = (one - a) * (one - b) * c
                w010 = (one - a) * b * (one - c)
                w011 = (one - a) * b * c
                w100 = a * (one - b) * (one - c)
                w101 = a * (one - b) * c
                w110 = a * b * (one - c)
                w111 = a * b * c
                gx = np.float32(0)
                gy = np.float32(0)
                gz = np.float32(0)
                for m in range(3):
                    f = v[m]
                    c000 = f[i, j, k]
                    c001 = f[i, j, k + 1]
                    c010 = f[i, j + 1, k]
                    c011 = f[i, j + 1, k + 1]
                    c100 = f[i + 1, j, k]
                    c101 = f[i + 1, j, k + 1]
                    c110 = f[i + 1, j + 1, k]
                    c111 = f[i + 1, j + 1, k + 1]
                    there = (
                        (w000 * c000 + w001 * c001)
                        + (w010 * c010 + w011 * c011)
                        + (w100 * c100 + w101 * c101)
                        + (w110 * c110 + w111 * c111)
                    )
                    rest = u[m, i0, j0, k0] + there
                    total += w * rest * rest
                    g = np.float32(2) * w * rest
                    by_u[m, i0, j0, k0] += g
                    d0 = (one - c) * (c100 - c000) + c * (c101 - c001)
                    d1 = (one - c) * (c110 - c010) + c * (c111 - c011)
                    gx += g * ((one - b) * d0 + b * d1)
                    d0 = (one - c) * (c010 - c000) + c * (c011 - c001)
                    d1 = (one - c) * (c110 - c100) + c * (c111 - c101)
                    gy += g * ((one - a) * d0 + a * d1)
                    d0 = (one - b) * (c001 - c000) + b * (c011 - c010)
                    d1 = (one - b) * (c101 - c100) + b * (c111 - c110)
                    gz += g * ((one - a) * d0 + a * d1)
                    h = by_v[m]
                    h[i, j, k] += g * w000
                    h[i, j, k + 1] += g * w001
                    h[i, j + 1, k] += g * w010
                    h[i, j + 1, k + 1] += g * w011
                    h[i + 1, j, k] += g * w100
                    h[i + 1, j, k + 1] += g * w101
                    h[i + 1, j + 1, k] += g * w110
                    h[i + 1, j + 1, k + 1] += g * w111
                if p == x:
                    by_u[0, i0, j0, k0] += gx
                if q == y:
                    by_u[1, i0, j0, k0] += gy
                if r == z:
                    by_u[2, i0, j0, k0] += gz
    return total, by_u, by_v


@serial_kernel
def moving_sum(array, radius):  # type: ignore[no-untyped-def]
    """Sum an array (nx, ny, nz) over cubes of 2 radius + 1 voxels, with zeros outside."""
    nx, ny, nz = array.shape
    first = np.zeros(array.shape, np.float32)
    second = np.zeros(array.shape, np.float32)
    for i in range(nx):
        for j in range(ny):
            for d in range(-radius, radius + 1):
                low = max(0, -d)
                high = min(nz, nz - d)
                for k in range(low, high):
                    first[i, j, k] += array[i, j, k + d]
    for i in range(nx):
        for j in range(ny):
            for d in range(max(0, j - radius), min(ny, j + radius + 1)):
                for k in range(nz):
                    second[i, j, k] += first[i, d, k]
    first[:] = 0
    for i in range(nx):
        for d in range(max(0, i - radius), min(nx, i + radius + 1)):
            for j in range(ny):
                for k in range(nz):
                    first[i, j, k] += second[d, j, k]
    return first


@serial_kernel
def correlation_terms(fixed_mean, fixed_var, sum_m, sum_mm, sum_fm, weight, count, noise):  # type: ignore[no-untyped-def]
    """Return the weighted sum of the squared local correlation, and the factors of its derivative.

    With F, M in a window, A, B, C their covariance and variances (times count, the voxels that are valid in each
    window): cc = A^2 / (B C + (noise count)^2), and d cc / d M(x) = f (F(x) - mean F) - m (M(x) - mean M).
    """
    shape = sum_m.shape
    f = np.zeros(shape, np.float32)
    m = np.zeros(shape, np.float32)
    constant = np.zeros(shape, np.float32)
    total = 0.0
    for i in range(shape[0]):
        for j in range(shape[1]):
            row = np.float32(0)
            for k in range(shape[2]):
                n = count[i, j, k]
                w = weight[i, j, k]
                if w == 0 or n < 1:
                    continue
                mean = sum_m[i, j, k] / n
                a = sum_fm[i, j, k] - fixed_mean[i, j, k] * sum_m[i, j, k]
                b = fixed_var[i, j, k]
                c = max(sum_mm[i, j, k] - mean * sum_m[i, j, k], np.float32(0))
                scale = np.float32(1) / (b * c + (noise * n) ** 2)
                ratio = a * scale
                row += w * a * ratio
                gf = np.float32(2) * w * ratio
                gm = gf * ratio * b
                f[i, j, k] = gf
                m[i, j, k] = gm
                constant[i, j, k] = gm * mean - gf * fixed_mean[i, j, k]
            total += row
    return total, f, m, constant


@serial_kernel
def diffusion(u):  # type: ignore[no-untyped-def]
    """Return the sum of squared differences between neighbours of u (3, nx, ny, nz), and its derivative."""
    channels, nx, ny, nz = u.shape
    out = np.zeros(u.shape, np.float32)
    total = 0.0
    for m in range(channels):
        for i in range(nx):
            for j in range(ny):
                row = np.float32(0)
                if i + 1 < nx:
                    for k in range(nz):
                        d = u[m, i + 1, j, k] - u[m, i, j, k]
                        row += d * d
                        out[m, i + 1, j, k] += 2 * d
                        out[m, i, j, k] -= 2 * d
                if j + 1 < ny:
                    for k in range(nz):
                        d = u[m, i, j + 1, k] - u[m, i, j, k]
                        row += d * d
                        out[m, i, j + 1, k] += 2 * d
                        out[m, i, j, k] -= 2 * d
                for k in range(nz - 1):
                    d = u[m, i, j, k + 1] - u[m, i, j, k]
                    row += d * d
                    out[m, i, j, k + 1] += 2 * d
                    out[m, i, j, k] -= 2 * d
                total += row
    return total, out
