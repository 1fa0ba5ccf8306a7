//! A closed stretch of whole seconds of the log.

use std::fmt;

/// From one Unix second to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    from_second: i64,
    to_second: i64,
}

impl Window {
    /// None if it would end before it begins, or begin before 1970.
    pub fn new(from_second: i64, to_second: i64) -> Option<Self> {
        (0 <= from_second && from_second <= to_second).then_some(Window { from_second, to_second })
    }

    pub fn from_second(self) -> i64 {
        self.from_second
    }

    pub fn to_second(self) -> i64 {
        self.to_second
    }

    pub fn seconds(self) -> i64 {
        (self.to_second - self.from_second).saturating_add(1)
    }

    pub fn is_single_second(self) -> bool {
        self.from_second == self.to_second
    }

    pub fn contains(self, second: i64) -> bool {
        (self.from_second..=self.to_second).contains(&second)
    }

    /// Up to `count` windows of about equal length that follow each other and make up this one, in order.
    pub(super) fn parts(self, count: i64) -> Vec<Window> {
        let length = (self.seconds() / count.max(1) + i64::from(self.seconds() % count.max(1) > 0)).max(1);
        let mut parts = Vec::new();
        let mut from_second = self.from_second;
        while from_second <= self.to_second {
            let to_second = from_second.saturating_add(length - 1).min(self.to_second);
            parts.push(Window { from_second, to_second });
            from_second = to_second + 1;
        }
        parts
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.from_second, self.to_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(from_second: i64, to_second: i64) -> Window {
        Window::new(from_second, to_second).unwrap()
    }

    #[test]
    fn a_window_has_at_least_one_second() {
        assert_eq!(Window::new(5, 4), None);
        assert_eq!(Window::new(-1, 4), None);
        assert!(window(4, 4).is_single_second() && window(4, 4).contains(4) && !window(4, 4).contains(5));
        assert_eq!(window(4, 6).seconds(), 3);
    }

    #[test]
    fn parts_follow_each_other_without_a_gap() {
        assert_eq!(window(10, 14).parts(2), [window(10, 12), window(13, 14)]);
        assert_eq!(window(10, 11).parts(8), [window(10, 10), window(11, 11)]);
        assert_eq!(window(7, 7).parts(2), [window(7, 7)]);
        for (length, count) in [(100, 8), (9, 8), (604_800, 2), (3, 2)] {
            let parts = window(0, length - 1).parts(count);
            assert!(parts.len() as i64 <= count);
            assert_eq!((parts[0].from_second(), parts.last().unwrap().to_second()), (0, length - 1));
            assert!(parts.windows(2).all(|pair| pair[0].to_second() + 1 == pair[1].from_second()));
        }
    }
}
