//! Prints the settings in effect.

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use pac_concurrency::LoadedSettings;
use pac_concurrency::settings::{EffectiveSetting, Source};
use serde::Serialize;

use crate::format::cell;

/// A row per setting, and a sentence that sums them up.
pub(crate) fn table(loaded: &LoadedSettings) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["key", "value", "source"]);
    for setting in shown(loaded).filter(|setting| setting.used) {
        let source = setting.source.to_string();
        table.add_row([setting.key.name().to_owned(), cell(&setting.value), source]);
    }
    let mut text = format!("{table}\n{}\n", summary(loaded));
    for setting in shown(loaded).filter(|setting| !setting.used) {
        let _ = writeln!(
            text,
            "not used: {} ({})",
            setting.key.name(),
            setting.source
        );
    }
    text
}

/// Sums the settings up in a sentence.
pub(crate) fn summary(loaded: &LoadedSettings) -> String {
    let values = loaded.values();
    if values.enabled {
        format!(
            "concurrency limits are enabled, with the driver {}",
            values.driver
        )
    } else {
        "concurrency limits are not enabled: concurrency-enabled is false, or no driver is named"
            .to_owned()
    }
}

/// A JSON array of all settings.
pub(crate) fn json(loaded: &LoadedSettings, out: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Row<'a> {
        key: &'a str,
        value: &'a str,
        source: String,
        used: bool,
    }
    let rows: Vec<Row<'_>> = shown(loaded)
        .map(|setting| Row {
            key: setting.key.name(),
            value: &setting.value,
            source: setting.source.to_string(),
            used: setting.used,
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)
}

/// A plain map of settings that can be read back, with the sources in comments. A setting that
/// is not shown is a comment as a whole.
pub(crate) fn yaml(loaded: &LoadedSettings) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for setting in shown(loaded) {
        let (key, source) = (setting.key.name(), &setting.source);
        if setting.is_shown {
            // A JSON string is a valid YAML string.
            let value = serde_json::to_string(&setting.value)?;
            let _ = writeln!(text, "{key}: {value}  # {source}");
        } else {
            let _ = writeln!(text, "# {key}: {}  # {source}", setting.value);
        }
    }
    Ok(text)
}

/// Omits defaults of drivers that are not used.
fn shown(loaded: &LoadedSettings) -> impl Iterator<Item = &EffectiveSetting> {
    let effective = loaded.effective().iter();
    effective.filter(|setting| setting.used || setting.source != Source::Default)
}

#[cfg(test)]
mod tests {
    use pac_concurrency::SettingsLoader;

    use super::*;

    #[test]
    fn yaml_that_is_printed_means_the_same_when_it_is_read() {
        let loaded = SettingsLoader::new()
            .set("concurrency-driver", "postgresql")
            .set("postgresql-host", "a,b:5433")
            .set("postgresql-username", "o'hara \"x\": #1")
            .set("postgresql-password", "hunter2")
            .load()
            .unwrap();
        let text = yaml(&loaded).unwrap();
        assert!(
            text.contains("# postgresql-password: (redacted)  # --set\n"),
            "{text}"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.yaml");
        std::fs::write(&file, text).unwrap();
        let again = SettingsLoader::new().file(&file).load().unwrap();
        let (mut first, second) = (loaded.values().clone(), again.values());
        first.postgresql.password = None;
        assert_eq!(&first, second);
    }
}
