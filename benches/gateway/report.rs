//! Tables for people, and the same figures as JSON.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::Outcome;

/// Prints rows under headings, columns aligned, in a form that Markdown understands.
pub fn table(headings: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::len);
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let print = |cells: &[String]| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("| {} |", padded.join(" | "));
    };
    print(&headings.iter().map(ToString::to_string).collect::<Vec<_>>());
    print(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
    for row in rows {
        print(row);
    }
}

/// Writes the figures, if a file is given.
pub fn json(file: Option<&Path>, figures: &Value) -> Outcome<()> {
    if let Some(file) = file {
        fs::write(file, serde_json::to_vec_pretty(figures)?)?;
    }
    Ok(())
}

/// Whether a figure is within its bound; says so if it is not.
pub fn within(what: &str, figure: f64, bound: Option<f64>) -> bool {
    match bound {
        Some(bound) if figure.is_nan() || figure > bound => {
            println!("FAILED: {what} is {figure:.2}, above the bound of {bound:.2}");
            false
        }
        Some(bound) => {
            println!("ok: {what} is {figure:.2}, within {bound:.2}");
            true
        }
        None => true,
    }
}
