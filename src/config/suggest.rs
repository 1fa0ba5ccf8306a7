//! Finds the name that was probably meant. Knows nothing of keys beyond their text.

/// The known `section.key` nearest to an unknown one, if it is near enough to be what was meant.
pub(super) fn key(unknown: &str, known: &[String]) -> Option<String> {
    // The right key under the wrong section is further off in letters than it is in meaning.
    let name = last_part(unknown);
    let mut namesakes = known.iter().filter(|candidate| last_part(candidate) == name);
    nearest(unknown, known.iter().map(String::as_str)).or_else(|| match (namesakes.next(), namesakes.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => None,
    })
}

/// The candidate with the fewest letters to change, if these are few for the length of the text.
pub(super) fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let tolerance = (text.chars().count() / 5).clamp(1, 4);
    let rated = candidates.into_iter().map(|candidate| (distance(text, candidate), candidate));
    let (changes, candidate) = rated.min_by_key(|(changes, _)| *changes)?;
    (changes <= tolerance).then(|| candidate.to_owned())
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Letters to insert, delete or replace to get from one text to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}
