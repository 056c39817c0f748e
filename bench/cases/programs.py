"""Programs as people write them, unmodified, over plain NumPy, SciPy, scikit-image, pandas, scikit-learn and OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Step = Callable[[], Any]


def numpy_stencil() -> Step:
    """One step of heat flow on a 1024 x 1024 plate."""
    plate = np.random.default_rng(0).random((1024, 1024))

    def step() -> Any:
        flow = plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:] - 4.0 * plate[1:-1, 1:-1]
        return plate[1:-1, 1:-1] + 0.1 * flow

    return step


def numpy_monte_carlo() -> Step:
    """The price of a call option from 200,000 paths."""

    def step() -> Any:
        rng = np.random.default_rng(1)
        ends = 100.0 * np.exp(-0.02 + 0.2 * rng.standard_normal(200_000))
        payoff = np.maximum(ends - 105.0, 0.0)
        return payoff.mean(), payoff.std()

    return step


def numpy_distances() -> Step:
    """All distances between 800 and 800 points in space, by broadcasting."""
    rng = np.random.default_rng(0)
    a, b = rng.random((800, 3)), rng.random((800, 3))
    return lambda: np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=-1))


def numpy_fft_filter() -> Step:
    """A low pass over a 512 x 512 picture in frequency space."""
    picture = np.random.default_rng(0).random((512, 512))
    fy, fx = np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None, :]
    mask = np.exp(-40.0 * (fx**2 + fy**2))
    return lambda: np.fft.irfft2(np.fft.rfft2(picture) * mask)


def numpy_k_means() -> Step:
    """One round of Lloyd's algorithm: 100,000 points in the plane, 8 centres."""
    rng = np.random.default_rng(0)
    points, centres = rng.random((100_000, 2)), rng.random((8, 2))

    def step() -> Any:
        distances = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
        nearest = distances.argmin(axis=1)
        return np.stack([points[nearest == k].mean(axis=0) for k in range(len(centres))])

    return step


def numpy_standardise() -> Step:
    """Columns of a 200,000 x 10 table to mean 0 and deviation 1, and their correlations."""
    table = np.random.default_rng(0).random((200_000, 10))

    def step() -> Any:
        standard = (table - table.mean(axis=0)) / table.std(axis=0)
        return standard.T @ standard / len(standard)

    return step


def numpy_mandelbrot() -> Step:
    """20 rounds of z * z + c on a 300 x 300 grid, with a count of those that stay."""
    y, x = np.mgrid[-1.5:1.5:300j, -2.0:1.0:300j]
    c = x + 1j * y

    def step() -> Any:
        z = np.zeros_like(c)
        count = np.zeros(c.shape, np.int64)
        for _ in range(20):
            inside = np.abs(z) < 2.0
            z = np.where(inside, z * z + c, z)
            count += inside
        return count

    return step


def scipy_gaussian_filter() -> Step:
    """`scipy.ndimage`: smoothing and gradient magnitude of a 512 x 512 picture."""
    from scipy import ndimage

    picture = np.random.default_rng(0).random((512, 512))

    def step() -> Any:
        smooth = ndimage.gaussian_filter(picture, 2.0)
        return np.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))

    return step


def scipy_spectrogram() -> Step:
    """`scipy.signal`: a spectrogram of ten seconds of sound."""
    from scipy import signal

    sound = np.random.default_rng(0).standard_normal(441_000)
    return lambda: signal.spectrogram(sound, 44_100.0, nperseg=1024, noverlap=512)[2]


def scipy_convolve() -> Step:
    """`scipy.signal.fftconvolve` of 300,000 samples with 3,000."""
    from scipy import signal

    rng = np.random.default_rng(0)
    sound, response = rng.standard_normal(300_000), rng.standard_normal(3_000)
    return lambda: signal.fftconvolve(sound, response, mode="same")


def scipy_cdist() -> Step:
    """`scipy.spatial.distance.cdist`: 1,200 x 1,200 points, and a kernel of the distances."""
    from scipy.spatial import distance

    points = np.random.default_rng(0).random((1_200, 3))
    return lambda: np.exp(-distance.cdist(points, points, "sqeuclidean"))


def skimage_resize() -> Step:
    """`skimage.transform.resize` of a 540 x 960 picture in colour to half, smoothed."""
    from skimage import transform

    picture = np.random.default_rng(0).integers(0, 256, (540, 960, 3), dtype=np.uint8)
    return lambda: transform.resize(picture, (270, 480), anti_aliasing=True)


def skimage_edges() -> Step:
    """`skimage`: grey, Sobel, Otsu's threshold, on a 540 x 960 picture in colour."""
    from skimage import color, filters

    picture = np.random.default_rng(0).integers(0, 256, (540, 960, 3), dtype=np.uint8)

    def step() -> Any:
        edges = filters.sobel(color.rgb2gray(picture))
        return edges > filters.threshold_otsu(edges)

    return step


def pandas_group_by() -> Step:
    """`pandas`: mean and sum by group, 1,000,000 rows, 1,000 groups."""
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"key": rng.integers(0, 1_000, 1_000_000), "value": rng.random(1_000_000)})
    return lambda: table.groupby("key")["value"].agg(["mean", "sum"]).to_numpy()


def pandas_rolling() -> Step:
    """`pandas`: rolling mean and deviation over 500,000 values, and the share of outliers."""
    import pandas as pd

    values = pd.Series(np.random.default_rng(0).standard_normal(500_000))

    def step() -> Any:
        window = values.rolling(50)
        return float(((values - window.mean()).abs() > 2.0 * window.std()).mean())

    return step


def pandas_filter() -> Step:
    """`pandas`: new columns, a filter and a sort of 300,000 rows."""
    import pandas as pd

    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": rng.random(300_000), "amount": rng.integers(1, 100, 300_000)})

    def step() -> Any:
        rows = table.assign(total=table["price"] * table["amount"])
        return rows[rows["total"] > 20.0].sort_values("total")["total"].to_numpy()

    return step


def sklearn_pca() -> Step:
    """`scikit-learn`: scaling, then the first five principal components of a 50,000 x 20 table."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table = np.random.default_rng(0).standard_normal((50_000, 20))
    return lambda: np.abs(make_pipeline(StandardScaler(), PCA(5)).fit_transform(table))


def sklearn_k_means() -> Step:
    """`scikit-learn`: `KMeans`, five rounds over 50,000 x 8."""
    from sklearn.cluster import KMeans

    table = np.random.default_rng(0).random((50_000, 8))
    return lambda: KMeans(8, init=table[:8], n_init=1, max_iter=5, tol=0.0).fit(table).cluster_centers_


def opencv_optical_flow() -> Step:
    """OpenCV: dense optical flow (Farneback) between two 240 x 320 frames, and its speed."""
    import cv2

    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    first = cv2.GaussianBlur(rng.integers(0, 256, (240, 320), dtype=np.uint8), (0, 0), 3.0)
    second = np.roll(first, 2, axis=1)

    def step() -> Any:
        flow = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        return np.sqrt((flow**2).sum(axis=2))

    return step


def opencv_frame() -> Step:
    """OpenCV: a 1080p frame to float, blur, difference with the background, threshold, and its shapes' share."""
    import cv2

    cv2.setNumThreads(1)
    frame = np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    background = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)

    def step() -> Any:
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float32)
        smooth = cv2.GaussianBlur(grey, (5, 5), 0)
        return (np.abs(smooth - background) > 20.0).mean()

    return step


_PROGRAMS: tuple[Callable[[], Step], ...] = (
    numpy_stencil,
    numpy_monte_carlo,
    numpy_distances,
    numpy_fft_filter,
    numpy_k_means,
    numpy_standardise,
    numpy_mandelbrot,
    scipy_gaussian_filter,
    scipy_spectrogram,
    scipy_convolve,
    scipy_cdist,
    skimage_resize,
    skimage_edges,
    pandas_group_by,
    pandas_rolling,
    pandas_filter,
    sklearn_pca,
    sklearn_k_means,
    opencv_optical_flow,
    opencv_frame,
)
NAMES = [program.__name__ for program in _PROGRAMS]


def build(name: str) -> Step:
    return next(program for program in _PROGRAMS if program.__name__ == name)()
