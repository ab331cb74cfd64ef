//! An experiment's data on disk: JSON with everything, and CSV with a line for each row. Written anew after each row, so that whatever ends a
//! run, what it measured is there.

use std::collections::BTreeSet;
use std::path::Path;

use super::FiguresError;
use super::experiment::Data;

/// Writes `NAME.json` and `NAME.csv`.
///
/// # Errors
/// A file cannot be written.
pub fn save(folder: &Path, data: &Data) -> Result<(), FiguresError> {
    let json = serde_json::to_string_pretty(data).map_err(std::io::Error::other);
    for (ending, text) in [("json", json), ("csv", Ok(csv(data)))] {
        let path = folder.join(format!("{}.{ending}", data.experiment));
        // A reader never sees half a file, nor does a run that is killed leave one.
        let part = folder.join(format!("{}.{ending}.part", data.experiment));
        let written = text.and_then(|text| std::fs::write(&part, text)).and_then(|()| std::fs::rename(&part, &path));
        written.map_err(|e| FiguresError::File(path, e))?;
    }
    Ok(())
}

/// Reads `NAME.json` of an earlier run; `None` when there is none that can be read.
pub fn load(folder: &Path, name: &str) -> Option<Data> {
    serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{name}.json"))).ok()?).ok()
}

/// RFC 4180: series, x, every value by name, what went wrong.
pub fn csv(data: &Data) -> String {
    let names: BTreeSet<&String> = data.rows.iter().flat_map(|row| row.values.keys()).collect();
    let mut text = String::new();
    let heading = ["series", "x"].into_iter().chain(names.iter().map(|name| name.as_str())).chain(["disturbed_percent", "trouble"]);
    line(&mut text, heading.map(str::to_owned));
    for row in &data.rows {
        let values = names.iter().map(|name| row.values.get(*name).map_or(String::new(), f64::to_string));
        let disturbed = row.disturbed_percent.map_or(String::new(), |percent| percent.to_string());
        let ends = [disturbed, row.trouble.clone().unwrap_or_default()];
        line(&mut text, [row.series.clone(), row.x.to_string()].into_iter().chain(values).chain(ends));
    }
    text
}

fn line(text: &mut String, fields: impl Iterator<Item = String>) {
    for (place, field) in fields.enumerate() {
        if place > 0 {
            text.push(',');
        }
        if field.contains([',', '"', '\n', '\r']) {
            text.push_str(&format!("\"{}\"", field.replace('"', "\"\"")));
        } else {
            text.push_str(&field);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::super::experiment::Row;
    use super::*;
    use crate::machine::Machine;

    fn data(rows: Vec<Row>) -> Data {
        let settings = [("seconds".to_owned(), 2.0)].into();
        Data { experiment: "e".into(), settings, machine: Machine::read(), noise: Vec::new(), began: "now".into(), rows, failure: None }
    }

    fn row(series: &str, x: f64, values: &[(&str, f64)], trouble: Option<&str>) -> Row {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Row { series: series.into(), x, values, trouble: trouble.map(str::to_owned), disturbed_percent: None }
    }

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let data = data(vec![row("a", 1.0, &[("v", 0.1), ("w", 1e-9)], None), row("b", 2.5, &[], Some("it \"hung\", so"))]);
        save(folder.path(), &data).unwrap();
        assert_eq!(load(folder.path(), "e"), Some(data));
        assert_eq!(load(folder.path(), "f"), None);
        std::fs::write(folder.path().join("f.json"), "{").unwrap();
        assert_eq!(load(folder.path(), "f"), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no parts are left");
    }

    #[test]
    fn any_rows_make_a_table_that_others_read() {
        use proptest::prelude::*;
        let rows = proptest::collection::vec((".{0,12}", 0.0f64..1e6, proptest::collection::btree_map("[a-c]", any::<f64>(), 0..3)), 1..6);
        proptest!(|(rows in rows)| {
            let rows: Vec<Row> = rows.into_iter().map(|(series, x, values)| Row { trouble: Some(series.clone()), disturbed_percent: Some(x), series, x, values }).collect();
            let text = csv(&data(rows.clone()));
            let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
            let names = reader.headers().unwrap().clone();
            let read: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), rows.len());
            for (record, row) in read.iter().zip(&rows) {
                prop_assert_eq!(&record[0], row.series.as_str());
                prop_assert_eq!(record[1].parse::<f64>().unwrap(), row.x);
                for (name, value) in names.iter().zip(record).skip(2).take(names.len() - 4) {
                    prop_assert_eq!(value.to_owned(), row.values.get(name).map_or(String::new(), f64::to_string));
                }
            }
        });
    }
}
