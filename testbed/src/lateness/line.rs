//! The line of earliest arrivals: the lower convex hull of (media time, offset), and the supporting line that is judged against.

/// Corners kept; when there are more, every second inner one goes. The hull of noise has some dozens of corners, so this only bounds
/// memory for a stream that falls behind in a perfect curve.
const CORNERS_MAX: usize = 256;

/// Points whose media time never goes back, reduced to those that can touch a line from below.
#[derive(Clone, Debug, Default)]
pub struct LowerHull {
    corners: Vec<(i64, i64)>,
    x_first: i64,
}

/// A line `offset = at_ns + slope * (x - x0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    x0: i64,
    at_ns: i64,
    slope: f64,
}

impl Line {
    /// The offset that counts as on time at media time `x`.
    pub fn offset_ns(&self, x: i64) -> i64 {
        if self.slope == 0.0 {
            return self.at_ns;
        }
        self.at_ns.saturating_add((self.slope * x.saturating_sub(self.x0) as f64).floor() as i64)
    }
}

/// Twice the signed area of the triangle o-a-b: positive when o-a-b turns left.
fn turn(o: (i64, i64), a: (i64, i64), b: (i64, i64)) -> i128 {
    let d = |p: i64, q: i64| i128::from(p) - i128::from(q);
    d(a.0, o.0) * d(b.1, o.1) - d(a.1, o.1) * d(b.0, o.0)
}

impl LowerHull {
    /// Adds a point. One whose media time lies before the last is left out: it cannot be placed in order.
    pub fn push(&mut self, x: i64, offset_ns: i64) {
        match self.corners.last_mut() {
            None => self.x_first = x,
            Some(last) if x < last.0 => return,
            Some(last) if x == last.0 => {
                if offset_ns >= last.1 {
                    return;
                }
                self.corners.pop();
            }
            Some(_) => {}
        }
        let point = (x, offset_ns);
        while let [.., o, a] = self.corners.as_slice() {
            if turn(*o, *a, point) > 0 {
                break;
            }
            self.corners.pop();
        }
        self.corners.push(point);
        if self.corners.len() > CORNERS_MAX {
            let last = self.corners.len() - 1;
            let mut place = 0;
            self.corners.retain(|_| {
                place += 1;
                place - 1 == last || (place - 1) % 2 == 0
            });
        }
    }

    /// The line under all points whose slope is at most `drift_ppm` (either way). Of the lines that touch the hull from below it is the one
    /// with the least mean height of points above it: the edge over the middle of the time covered. `None` without points.
    pub fn line(&self, drift_ppm: f64) -> Option<Line> {
        let lowest = *self.corners.iter().min_by_key(|c| c.1)?;
        if drift_ppm <= 0.0 {
            return Some(Line { x0: lowest.0, at_ns: lowest.1, slope: 0.0 });
        }
        let limit = drift_ppm / 1e6;
        let x_last = self.corners.last()?.0;
        let middle = self.x_first + (x_last - self.x_first) / 2;
        let slope = self
            .corners
            .windows(2)
            .find_map(|edge| match edge {
                [a, b] if b.0 >= middle && b.0 > a.0 => Some((b.1 - a.1) as f64 / (b.0 - a.0) as f64),
                _ => None,
            })
            .unwrap_or(0.0)
            .clamp(-limit, limit);
        // The corner that a line of this slope touches first from below.
        let height = |c: &(i64, i64)| c.1 as f64 - slope * (c.0 - self.x_first) as f64;
        let touch = *self.corners.iter().min_by(|a, b| height(a).total_cmp(&height(b)))?;
        Some(Line { x0: touch.0, at_ns: touch.1, slope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_drift_the_line_is_the_smallest_offset() {
        let mut hull = LowerHull::default();
        for (x, d) in [(0, 500), (10, 90), (20, 100), (30, 80), (40, 700)] {
            hull.push(x, d);
        }
        let line = hull.line(0.0).unwrap();
        assert_eq!((line.offset_ns(0), line.offset_ns(1_000_000)), (80, 80));
    }

    #[test]
    fn drift_is_followed_only_as_far_as_allowed() {
        let mut hull = LowerHull::default();
        for k in 0..1_000i64 {
            // 50 ppm: 50 ns per millisecond.
            hull.push(k * 1_000_000, k * 50 + (k % 7) * 100_000);
        }
        let followed = hull.line(100.0).unwrap();
        assert!((followed.offset_ns(994_000_000) - 994 * 50).abs() <= 1);
        let clamped = hull.line(10.0).unwrap();
        assert!((clamped.offset_ns(900_000_000) - 900 * 10).abs() <= 1);
    }

    #[test]
    fn a_growing_curve_keeps_the_hull_bounded_and_below() {
        let mut hull = LowerHull::default();
        let points: Vec<(i64, i64)> = (0..5_000i64).map(|k| (k * 1_000, k * k)).collect();
        for &(x, d) in &points {
            hull.push(x, d);
        }
        assert!(hull.corners.len() <= CORNERS_MAX);
        assert_eq!(hull.line(0.0).unwrap().offset_ns(0), 0);
    }

    #[test]
    fn no_point_lies_under_its_line() {
        use proptest::prelude::*;
        proptest!(|(offsets in proptest::collection::vec(0i64..1_000_000, 1..300), ppm in 0.0f64..500.0)| {
            let mut hull = LowerHull::default();
            for (k, &d) in offsets.iter().enumerate() {
                hull.push(k as i64 * 40_000_000, d);
            }
            let line = hull.line(ppm).unwrap();
            for (k, &d) in offsets.iter().enumerate() {
                // One nanosecond for the rounding of the slope.
                prop_assert!(line.offset_ns(k as i64 * 40_000_000) <= d + 1);
            }
        });
    }
}
