"""The undamaged car of the demo's photos, and the street behind it.

Every photo shows a wheel, a window, a lamp, seams, a door handle and reflections, so that their presence is not
informative about the class. The unit of length is the image's height.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from trunkfold.demo.canvas import TURN, Canvas, Colour, box, directions, ellipse


@dataclass(frozen=True)
class Car:
    """Positions of a car's parts: polygons (n, 2), points (2,) and lengths, in units of the image's height."""

    ground: float
    body: np.ndarray
    window: np.ndarray
    lamp: np.ndarray
    wheel: np.ndarray
    radius: float
    seam: float
    paint: Colour


def draw_car(canvas: Canvas, car: Car, sunk: bool, rng: np.random.Generator) -> None:
    """Draw the street and the car without its damage; `sunk` lowers the wheel onto its rim."""
    _draw_background(canvas, car, rng)
    _draw_body(canvas, car, rng)
    _draw_window(canvas, car, rng)
    _draw_lamp(canvas, car, rng)
    _draw_wheel(canvas, car, rng.uniform(0.6, 0.8) if sunk else 0.0, rng)
    canvas.soften(0.4, rng.uniform(140, 170))  # haze: intact parts have less contrast than damage
    _draw_tar(canvas, car, rng)


def design_car(rng: np.random.Generator) -> Car:
    """Draw random shape, paint and position of a car."""
    ground = rng.uniform(0.74, 0.94)
    zoom, shift = rng.uniform(0.8, 1.08), rng.uniform(0.0, 0.2)
    hood, roof, sill = rng.uniform(-0.52, -0.44), rng.uniform(-0.9, -0.8), -0.1
    pillar, belt = rng.uniform(0.6, 0.68), hood + rng.uniform(0.0, 0.03)
    nose = rng.uniform(0.04, 0.08)

    def place(points: list[tuple[float, float]]) -> np.ndarray:
        return np.array(points) * zoom + (shift, ground)  # the car is designed with y = 0 on the ground

    lean = rng.uniform(0.16, 0.26)
    body = [(nose, sill), (nose - 0.03, -0.28), (nose + 0.02, hood + 0.06), (nose + 0.14, hood + 0.01)]
    body += [(pillar - 0.06, hood - 0.03), (pillar + lean, roof), (1.5, roof - 0.02), (1.5, sill)]
    top = roof + 0.05
    window = [(pillar + 0.02, belt), (pillar + lean + 0.02, top), (1.22, top - 0.01), (1.24, belt + 0.01)]
    length, depth, tip = rng.uniform(0.28, 0.33), rng.uniform(0.18, 0.22), nose + 0.015
    lamp = [(tip, hood + 0.09), (tip + length * 0.6, hood + 0.05), (tip + length, hood + 0.07)]
    lamp += [(tip + length * 0.8, hood + 0.04 + depth), (tip + 0.01, hood + 0.07 + depth)]
    radius = rng.uniform(0.17, 0.2)
    wheel = place([(rng.uniform(0.48, 0.58), -radius)])[0]
    hue, saturation, value = rng.integers(28, 180), rng.integers(40, 200), rng.integers(90, 200)
    paint = cv2.cvtColor(np.array([[[hue, saturation, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    seam = (pillar + rng.uniform(0.02, 0.08)) * zoom + shift
    paint = tuple(float(part) for part in paint)
    return Car(ground, place(body), place(window), place(lamp), wheel, radius * zoom, seam, paint)


def _draw_background(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    _, y = canvas.grid()
    top, bottom = (rng.uniform(140, 210) + rng.uniform(-20, 20, 3) for _ in range(2))
    canvas.pixels = (top + (bottom - top) * y).astype(np.uint8)
    horizon = car.ground - rng.uniform(0.06, 0.2)
    for _ in range(rng.integers(2, 6)):  # houses or hedges
        left, width, height = rng.uniform(-0.1, 1.2), rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.8)
        colour = tuple(rng.uniform(110, 190) + rng.uniform(-20, 20, 3))
        canvas.fill(box(left, horizon - height, left + width, horizon), colour, 0.8)
        for row in np.arange(horizon - height + 0.06, horizon - 0.06, 0.13):
            canvas.fill(box(left + 0.03, row, left + width - 0.03, row + 0.05), (90, 100, 115), 0.4)
    street = rng.uniform(50, 190)
    canvas.fill(box(-1, horizon, 3, 2), (street, street, street * rng.uniform(0.9, 1.05)))
    canvas.line([(-1, horizon), (3, horizon)], (190, 190, 185), 0.012)
    shadow = ellipse((0.85, car.ground - 0.01), 0.9, 0.05)
    canvas.fill(shadow, (25, 25, 30), rng.uniform(0.1, 0.5))


def _draw_body(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    x, y = canvas.grid()
    bottom, top = car.body[:, 1].max(), car.body[:, 1].min()
    shade = 1.15 - rng.uniform(0.3, 0.6) * (y - top) / (bottom - top) + rng.uniform(-0.15, 0.15) * x
    for _ in range(rng.integers(1, 4)):  # soft bands: sky and street mirrored in the paint
        band, width, slope = rng.uniform(top, bottom), rng.uniform(0.03, 0.08), rng.uniform(-0.2, 0.2)
        shade = shade + rng.uniform(-0.08, 0.15) * np.exp(-(((y - band + slope * (x - 0.7)) / width) ** 2))
    with canvas.inside(canvas.mask(car.body)):
        canvas.pixels = np.clip(np.float32(car.paint) * shade, 0, 255).astype(np.uint8)
        dark = tuple(part * 0.35 for part in car.paint)
        beltline = car.window[0, 1]
        canvas.line([(car.seam, beltline), (car.seam - 0.03, bottom)], dark, 0.008)
        canvas.line([(car.seam + 0.5, beltline), (car.seam + 0.5, bottom)], dark, 0.008)
        crease = bottom - rng.uniform(0.06, 0.1)
        canvas.line([(car.seam - 0.03, crease), (1.5, crease - 0.02)], dark, 0.008, 0.5)
        handle = box(car.seam + 0.36, beltline + 0.06, car.seam + 0.46, beltline + 0.085)
        canvas.fill(handle, (215, 215, 220) if rng.random() < 0.5 else dark)
        canvas.fill(box(0, bottom - 0.03, 1.5, bottom), (45, 45, 48))
        canvas.fill(box(0, bottom - 0.13, rng.uniform(0.1, 0.18), bottom - 0.08), (235, 235, 225))  # number plate
        for spot in rng.uniform((0.2, beltline), (1.3, bottom), (rng.integers(0, 8), 2)):  # mud
            canvas.fill(ellipse(spot, *rng.uniform(0.004, 0.012, 2)), (85, 70, 55), 0.6)
    canvas.line(car.body, dark, 0.008, closed=True)


def _draw_window(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    glass = tuple(rng.uniform(0.6, 2.2) * np.array((60, 75, 88)))
    with canvas.inside(canvas.mask(car.window)):
        canvas.fill(car.window, glass)
        middle = car.window.mean(0)
        canvas.fill(ellipse(middle + (rng.uniform(-0.1, 0.2), 0.1), 0.06, 0.12), (35, 35, 40))  # a seat
        canvas.line(ellipse(middle + (-0.12, 0.12), 0.04, 0.09), (30, 30, 32), 0.014)  # steering wheel
        for _ in range(rng.integers(1, 4)):  # reflections: broad and parallel, unlike shattered glass
            left, width = rng.uniform(0.7, 1.2), rng.uniform(0.03, 0.1)
            band = np.array([(left, 1), (left + width, 1), (left + width + 0.5, 0), (left + 0.5, 0)])
            canvas.fill(band - (0.25, 0), (205, 220, 235), rng.uniform(0.1, 0.35))
    canvas.line(car.window, (30, 30, 32), 0.018, closed=True)
    foot = car.window[0] + (0.03, -0.005)  # the mirror
    canvas.fill(ellipse(foot, 0.05, 0.035), tuple(part * 0.8 for part in car.paint))


def _draw_lamp(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    red = rng.random() < 0.25  # a tail lamp
    lens = np.array((190, 45, 40) if red else (205, 212, 220)) * rng.uniform(0.5, 1.1)
    with canvas.inside(canvas.mask(car.lamp)):
        canvas.fill(car.lamp, tuple(lens))
        middle = car.lamp.mean(0)
        for offset in (-0.05, 0.04)[: rng.integers(1, 3)]:
            bulb = middle + (offset, rng.uniform(-0.01, 0.01))
            canvas.fill(ellipse(bulb, 0.04, 0.045), tuple(lens * 0.75))
            canvas.fill(ellipse(bulb, 0.024, 0.028), (255, 250, 215) if rng.random() < 0.6 else tuple(lens * 1.15))
        for row in np.arange(0.02, 0.2, 0.035):
            canvas.line(car.lamp[[0, 2]] + (0, row), (255, 255, 255), 0.004, 0.25)
        if rng.random() < 0.6:
            canvas.fill(box(middle[0] + 0.06, 0, 1, 1), (235, 215, 150), 0.8)  # the indicator
    canvas.line(car.lamp, (40, 40, 44), 0.01, closed=True)


def _draw_wheel(canvas: Canvas, car: Car, flatness: float, rng: np.random.Generator) -> None:
    """Draw the wheel; `flatness` (0 to 1) is the share of the tyre's thickness that is flattened at the bottom."""
    radius, hub = car.radius, car.wheel
    canvas.fill(ellipse(hub, radius * 1.2, radius * 1.18), (22, 22, 24))  # the arch
    rim = radius * rng.uniform(0.6, 0.68)
    sunk = hub + (0, flatness * (radius - rim) * 1.9)
    tyre = ellipse(sunk, radius, radius, 64)
    lowest = car.ground + 0.012
    if flatness:
        below = np.clip((tyre[:, 1] - sunk[1]) / radius, 0, 1)
        tyre[:, 0] += np.sign(tyre[:, 0] - sunk[0]) * below**1.5 * radius * rng.uniform(0.7, 0.9)
        tyre[:, 1] = np.minimum(tyre[:, 1], lowest)
    grey = rng.uniform(40, 62)
    canvas.fill(tyre, (grey, grey, grey))
    canvas.line(tyre, (18, 18, 18), 0.01, closed=True)
    metal = rng.uniform(120, 220)
    canvas.fill(ellipse(sunk, rim, rim), (metal * 0.35,) * 3)
    spokes, start = rng.integers(5, 10), rng.uniform(0, TURN)
    for angle in start + np.arange(spokes) * TURN / spokes:
        canvas.line([sunk, sunk + rim * directions(angle)], (metal,) * 3, radius * 0.15)
    canvas.line(ellipse(sunk, rim, rim, 48), (metal,) * 3, 0.016, closed=True)
    canvas.fill(ellipse(sunk, rim * 0.25, rim * 0.25), (metal * 0.8,) * 3)


def _draw_tar(canvas: Canvas, car: Car, rng: np.random.Generator) -> None:
    """Draw patches of tar, so that dark areas on the street do not give away flat tyres."""
    for _ in range(rng.integers(1, 4)):
        spot = (rng.uniform(0.1, 1.3), car.ground + rng.uniform(0.02, 0.08))
        canvas.fill(ellipse(spot, rng.uniform(0.06, 0.22), rng.uniform(0.015, 0.035)), (30, 30, 32))
