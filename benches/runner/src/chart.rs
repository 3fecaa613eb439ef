//! Draws the chart of a mode: a bar for each server, whose length is its CPU time.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::modes::Mode;
use crate::results::{CPU, RATE, Results, Rounds};

const OURS: RGBColor = RGBColor(0xc2, 0x41, 0x0c);
const THEIRS: RGBColor = RGBColor(0x94, 0xa3, 0xb8);
const INK: RGBColor = RGBColor(0x33, 0x41, 0x55);
const FONT: &str = "sans-serif";
const WIDTH: i32 = 860;
/// Horizontal start of the bars, and their longest end.
const LEFT: i32 = 250;
const RIGHT: i32 = 640;
const ROW: i32 = 26;
const TOP: i32 = 64;
/// Bars of servers that need more than this many times the CPU of the reference are cut.
const LONGEST: f64 = 4.0;

pub(crate) fn draw(mode: &Mode, results: &Results, path: &Path) -> Result<(), Box<dyn Error>> {
    let servers = results.ranked();
    let height = TOP + ROW * servers.len() as i32 + 16;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let ink = |size: f64| (FONT, size).into_font().color(&INK);
    area.draw(&Text::new(mode.title, (16, 14), ink(20.0)))?;
    let reference = results.reference().map_or("", |reference| &reference.name);
    let legend = format!(
        "server CPU for each operation, {reference} = 1 (line: all {} rounds); rate at the right",
        results.rounds
    );
    area.draw(&Text::new(legend, (16, 38), ink(15.0)))?;
    let ratio = |server: &Rounds| server.ratio(results.reference()?, CPU);
    let longest = servers.iter().filter_map(|server| ratio(server)).map(|cpu| cpu.max);
    let longest = longest.fold(1.0, f64::max).min(LONGEST);
    let x = |ratio: f64| LEFT + ((ratio.min(longest) / longest) * f64::from(RIGHT - LEFT)) as i32;
    for (number, server) in servers.iter().enumerate() {
        let Some(cpu) = ratio(server) else { continue };
        let y = TOP + ROW * number as i32;
        let colour = if server.ours { OURS } else { THEIRS };
        let right = ink(16.0).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw(&Text::new(server.name.clone(), (LEFT - 8, y + 10), right))?;
        area.draw(&Rectangle::new([(LEFT, y + 2), (x(cpu.median), y + 18)], colour.filled()))?;
        area.draw(&PathElement::new([(x(cpu.min), y + 10), (x(cpu.max), y + 10)], INK))?;
        let left = ink(16.0).pos(Pos::new(HPos::Left, VPos::Center));
        let rate = server.median(RATE).unwrap_or_default();
        let label = format!("{:.2}   {rate:.0} {}", cpu.median, mode.units().0);
        area.draw(&Text::new(label, (x(cpu.max.max(cpu.median)) + 8, y + 10), left))?;
    }
    let bottom = TOP + ROW * servers.len() as i32;
    area.draw(&PathElement::new([(x(1.0), TOP - 4), (x(1.0), bottom)], INK.mix(0.4)))?;
    area.present()?;
    Ok(())
}
