//! The largest one-to-one matching, by augmenting paths. It knows nothing of what is matched, and nothing of `src/`.

/// `reach[left]` lists the right sides that a left side may have. How many pairs there are at most.
pub fn largest(reach: &[Vec<usize>], rights: usize) -> usize {
    let mut left_of: Vec<Option<usize>> = vec![None; rights];
    (0..reach.len()).filter(|left| augment(*left, reach, &mut left_of, &mut vec![false; rights])).count()
}

fn augment(left: usize, reach: &[Vec<usize>], left_of: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for &right in &reach[left] {
        if std::mem::replace(&mut seen[right], true) {
            continue;
        }
        let is_free = left_of[right].is_none_or(|other| augment(other, reach, left_of, seen));
        if is_free {
            left_of[right] = Some(left);
            return true;
        }
    }
    false
}

#[test]
fn pairs_are_rearranged_for_one_more() {
    assert_eq!(largest(&[vec![0, 1], vec![0]], 2), 2);
    assert_eq!(largest(&[vec![0], vec![0], vec![1]], 2), 2);
    assert_eq!(largest(&[vec![], vec![2, 1], vec![1], vec![2, 0]], 3), 3);
    assert_eq!(largest(&[], 4), 0);
}
