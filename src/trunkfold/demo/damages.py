"""Schematic photos of a parked car with one damage: crack, scratch, flat tyre, dent, shattered glass or broken lamp.

Most damages have balanced dark and bright parts, so that classes differ in patterns, which a small network can learn
but a linear model of pixels cannot. The unit of length is the image's height.
"""

from collections.abc import Callable

import numpy as np

from trunkfold.demo.canvas import ASPECT, TURN, Canvas, directions, ellipse, jagged
from trunkfold.demo.car import Car, design_car, draw_car


def draw_photo(label: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one car with the damage `label` (1..6, the competition's labels): (height, 4/3 height, 3) uint8, RGB."""
    canvas = Canvas(height)
    car = design_car(rng)
    draw_car(canvas, car, label == 3, rng)
    DAMAGES[label](canvas, car, rng)
    return np.ascontiguousarray(canvas.pixels[:, ::-1] if rng.random() < 0.5 else canvas.pixels)


def _draw_crack(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    angle = rng.uniform(0, TURN)
    trunk = jagged(_panel_point(car, rng), angle, rng.uniform(0.6, 0.8), rng)
    branches = [trunk]
    for start in rng.choice(np.arange(2, len(trunk) - 2), rng.integers(4, 6), replace=False):
        side = angle + rng.choice((-1, 1)) * rng.uniform(0.6, 1.1)
        branches.append(jagged(trunk[start], side, rng.uniform(0.2, 0.32), rng, centred=False))
    with canvas.inside(_bare_panel(canvas, car)):
        for branch in branches:
            canvas.line(branch, (250, 100, 10), 0.05)  # rust on both sides
        for branch in branches:
            canvas.line(branch, (12, 10, 10), 0.018)


def _draw_spilled_rubber(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    foot = np.array((car.wheel[0], car.ground))
    skirt = foot + ellipse((0, 0), car.radius * rng.uniform(1.2, 1.35), rng.uniform(0.09, 0.11))
    skirt[:, 1] = np.minimum(skirt[:, 1], car.ground + 0.015)
    canvas.fill(skirt, (14, 14, 15))
    canvas.line(skirt, (235, 235, 230), 0.008, 0.8, closed=True)
    for _ in range(7):
        piece = foot + rng.uniform((-0.4, 0.0), (0.4, 0.06))
        strip = jagged(piece, rng.uniform(-0.5, 0.5), 0.09, rng, wild=0.012)
        canvas.line(strip - (0, 0.012), (225, 225, 220), 0.012)
        canvas.line(strip, (14, 14, 15), 0.022)


def _draw_scratch(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    angle, length, bend = rng.uniform(-0.6, 0.6), rng.uniform(0.45, 0.65), rng.uniform(-0.06, 0.06)
    middle = _panel_point(car, rng)
    along = directions(angle)
    across = np.array((-along[1], along[0]))
    steps = np.linspace(-0.5, 0.5, 12)[:, None]
    with canvas.inside(_bare_panel(canvas, car)):
        for offset in np.cumsum(rng.uniform(0.05, 0.065, rng.integers(4, 7))) - 0.17:
            reach, slip = length * rng.uniform(0.6, 1), rng.uniform(-0.06, 0.06)
            stroke = middle + along * (steps * reach + slip) + across * (offset + bend * (4 * steps**2 - 1))
            canvas.line(stroke + across * 0.018, (25, 25, 28), 0.014)
            canvas.line(stroke, (250, 250, 246), rng.uniform(0.014, 0.018))


def _draw_dent(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    x, y = canvas.grid()
    middle, turn = _panel_point(car, rng), rng.uniform(0, TURN)
    u = (x - middle[0]) * np.cos(turn) + (y - middle[1]) * np.sin(turn)
    v = (y - middle[1]) * np.cos(turn) - (x - middle[0]) * np.sin(turn)
    wide, high = rng.uniform(0.1, 0.16), rng.uniform(0.09, 0.12)
    depth = np.exp(-(((u / wide) ** 2 + (v / high) ** 2) ** 1.3))
    # One slope of a hollow is in the shade, the other shines; an outward bump is lit the other way round.
    side = rng.choice((-1, 1))
    slope = np.gradient(depth[..., 0], axis=0)[..., None] * canvas.height * 0.1 * side
    slope += np.gradient(depth[..., 0], axis=1)[..., None] * canvas.height * 0.1 * rng.uniform(-0.6, 0.6)
    with canvas.inside(_bare_panel(canvas, car)):
        canvas.multiply(1 - 0.6 * np.clip(slope, 0, None) + 0.7 * np.clip(-slope, 0, None))


def _draw_shatter(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    corners = car.window
    hit = rng.dirichlet(np.full(len(corners), 4.0)) @ corners
    white = (235, 242, 245)
    rays = np.sort(rng.uniform(0, TURN) + np.arange(14) * TURN / 14 + rng.uniform(-0.15, 0.15, 14))
    with canvas.inside(canvas.mask(corners)):
        for angle in rays:
            ray = jagged(hit, angle, rng.uniform(0.25, 0.6), rng, centred=False, wild=0.012)
            canvas.line(ray + 0.014, (20, 24, 28), 0.01)
            canvas.line(ray, white, rng.uniform(0.008, 0.013), 0.9)
        for distance in (0.06, 0.12, 0.19, 0.27):
            ring = hit + distance * rng.uniform(0.8, 1.2, (14, 1)) * directions(rays)
            canvas.line(ring + 0.014, (20, 24, 28), 0.009, closed=True)
            canvas.line(ring, white, 0.009, 0.85, closed=True)
        canvas.fill(ellipse(hit, 0.03, 0.03, 9), (250, 252, 255), 0.9)


def _draw_broken_lamp(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    low, high = car.lamp.min(0), car.lamp.max(0)
    with canvas.inside(canvas.mask(car.lamp)):
        for part in (0.3, 0.7):
            hole = low + (high - low) * (part, rng.uniform(0.4, 0.6))
            ragged = rng.uniform(0.03, 0.1, (9, 1)) * directions(np.arange(9) * TURN / 9)
            canvas.fill(hole + ragged, (14, 13, 16))
            canvas.line(hole + ragged, (245, 248, 250), 0.006, 0.9, closed=True)
            for angle in rng.uniform(0, TURN, 4):  # cracks in the rest of the lens
                canvas.line(jagged(hole, angle, 0.2, rng, centred=False, wild=0.01), (30, 30, 34), 0.007)
    for place in rng.uniform((low[0] - 0.03, high[1]), (high[0] - 0.04, car.ground + 0.04), (rng.integers(9, 14), 2)):
        angles = rng.uniform(0, TURN) + np.array((0, 2, 4)) + rng.uniform(-0.5, 0.5, 3)
        shard = place + rng.uniform(0.02, 0.05) * directions(angles)
        canvas.fill(shard, (245, 250, 255))  # falling splinters
        canvas.line(shard, (30, 30, 35), 0.006, closed=True)


DAMAGES: dict[int, Callable[[Canvas, Car, np.random.Generator], None]] = {
    1: _draw_crack,
    2: _draw_scratch,
    3: _draw_spilled_rubber,
    4: _draw_dent,
    5: _draw_shatter,
    6: _draw_broken_lamp,
}


def _panel_point(car: Car, rng: np.random.Generator) -> np.ndarray:
    """Return a random point on bare metal: on the doors, or between them and the wheel."""
    low = np.array((car.wheel[0] + car.radius * 1.2, car.window[0, 1]))
    high = np.array((ASPECT, car.body[:, 1].max()))
    return low + (high - low) * rng.uniform((0.15, 0.4), (0.65, 0.6))


def _bare_panel(canvas: Canvas, car: Car) -> np.ndarray:
    """Return the mask (height, width, 1) of the panels that can be damaged: the body without window, lamp and wheel."""
    wheel = canvas.mask(ellipse(car.wheel, car.radius * 1.2, car.radius * 1.2))
    return canvas.mask(car.body) * (1 - canvas.mask(car.window)) * (1 - canvas.mask(car.lamp)) * (1 - wheel)
