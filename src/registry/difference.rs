//! What differs between two Avro schemas, path by path. Pure.

use std::collections::HashSet;
use std::fmt;

use apache_avro::Schema;
use apache_avro::schema::{Alias, Name, NamesRef, RecordField, RecordSchema, ResolvedSchema};
use serde::Serialize;

/// One difference of our schema from the one that is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: `device.tags[].name`, elements of a list as `[]`, values of a map as `{}`; the schema itself is `(schema)`.
    pub path: String,
    /// What.
    pub what: What,
    /// As it is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registered: Option<String>,
    /// As we have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours: Option<String>,
}

/// In what schemas differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A field that only we have.
    Added,
    /// A field that only the registered one has.
    Removed,
    /// Called otherwise, and tied to the other name by an alias.
    Renamed,
    /// Of another type.
    Type,
    /// Another default, or one where there was none.
    Default,
    /// Other symbols of an enumeration, or in another order.
    Symbols,
    /// Other aliases.
    Aliases,
    /// The fields of a record in another order.
    Order,
    /// Only the documentation.
    Documentation,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, registered, ours, .. } = self;
        let shown = |side: &Option<String>| side.clone().unwrap_or_else(|| "none".to_owned());
        let (registered, ours) = (shown(registered), shown(ours));
        match self.what {
            What::Added => write!(formatter, "+ {path}: added, {ours}"),
            What::Removed => write!(formatter, "- {path}: removed, was {registered}"),
            What::Documentation => write!(formatter, "~ {path}: documentation"),
            What::Renamed => write!(formatter, "~ {path}: renamed from {registered}, which is an alias"),
            What::Type => write!(formatter, "~ {path}: type {registered}, ours {ours}"),
            What::Default => write!(formatter, "~ {path}: default {registered}, ours {ours}"),
            What::Symbols => write!(formatter, "~ {path}: symbols {registered}, ours {ours}"),
            What::Aliases => write!(formatter, "~ {path}: aliases {registered}, ours {ours}"),
            What::Order => write!(formatter, "~ {path}: fields in the order {registered}, ours {ours}"),
        }
    }
}

/// What differs, in the order of our fields. Nothing, where the two mean the same.
///
/// # Errors
/// When one of them is not a schema; which, and why.
pub fn differences(registered: &str, ours: &str) -> Result<Vec<Difference>, String> {
    let parsed =
        |which, text| Schema::parse_str(text).map_err(|error| format!("{which} is not an Avro schema: {error}"));
    let (registered, ours) = (parsed("the registered one", registered)?, parsed("ours", ours)?);
    let resolved = |schema| ResolvedSchema::new(schema).map_err(|error| error.to_string());
    let (of_registered, of_ours) = (resolved(&registered)?, resolved(&ours)?);
    let mut comparison = Comparison {
        registered: of_registered.get_names(),
        ours: of_ours.get_names(),
        compared: HashSet::new(),
        found: Vec::new(),
    };
    comparison.types("", &registered, &ours);
    Ok(comparison.found)
}

struct Comparison<'s> {
    registered: &'s NamesRef<'s>,
    ours: &'s NamesRef<'s>,
    /// Pairs of named types: each once, since a type may hold itself.
    compared: HashSet<(Name, Name)>,
    found: Vec<Difference>,
}

impl<'s> Comparison<'s> {
    fn add(&mut self, path: &str, what: What, registered: Option<String>, ours: Option<String>) {
        let path = if path.is_empty() { "(schema)" } else { path }.to_owned();
        self.found.push(Difference { path, what, registered, ours });
    }

    fn unless_equal(&mut self, path: &str, what: What, registered: Option<String>, ours: Option<String>) {
        if registered != ours {
            self.add(path, what, registered, ours);
        }
    }

    fn types(&mut self, path: &str, registered: &'s Schema, ours: &'s Schema) {
        let (registered, ours) = (resolve(registered, self.registered), resolve(ours, self.ours));
        let (theirs, own) = (branches(registered), branches(ours));
        let is_union = |schema: &Schema| matches!(schema, Schema::Union(_));
        let is_same = is_union(registered) == is_union(ours)
            && theirs.len() == own.len()
            && theirs.iter().zip(own).all(|(theirs, own)| self.corresponds(theirs, own));
        if !is_same {
            self.add(path, What::Type, Some(label(registered)), Some(label(ours)));
        }
        for theirs in theirs {
            // What it holds is compared too where it became optional, or has new alternatives.
            if let Some(own) = own.iter().find(|own| self.corresponds(theirs, own)) {
                self.inside(path, resolve(theirs, self.registered), resolve(own, self.ours));
            }
        }
    }

    /// Whether two types are the same one, whatever they hold.
    fn corresponds(&self, registered: &Schema, ours: &Schema) -> bool {
        let (registered, ours) = (resolve(registered, self.registered), resolve(ours, self.ours));
        match (registered, ours) {
            (Schema::Array(_), Schema::Array(_)) | (Schema::Map(_), Schema::Map(_)) => true,
            (Schema::Record(_), Schema::Record(_)) | (Schema::Enum(_), Schema::Enum(_)) => {
                registered.name() == ours.name() || is_renamed(registered, ours)
            }
            _ => registered == ours,
        }
    }

    fn inside(&mut self, path: &str, registered: &'s Schema, ours: &'s Schema) {
        if let (Some(theirs), Some(own)) = (registered.name(), ours.name()) {
            if !self.compared.insert((theirs.clone(), own.clone())) {
                return;
            }
            if theirs != own {
                self.add(path, What::Renamed, Some(theirs.to_string()), Some(own.to_string()));
            }
            self.unless_equal(path, What::Aliases, aliases(registered), aliases(ours));
            self.unless_equal(path, What::Documentation, registered.doc().cloned(), ours.doc().cloned());
        }
        match (registered, ours) {
            (Schema::Array(theirs), Schema::Array(own)) => self.types(&format!("{path}[]"), &theirs.items, &own.items),
            (Schema::Map(theirs), Schema::Map(own)) => self.types(&format!("{path}{{}}"), &theirs.types, &own.types),
            (Schema::Record(theirs), Schema::Record(own)) => self.fields(path, theirs, own),
            (Schema::Enum(theirs), Schema::Enum(own)) => {
                let listed = |symbols: &[String]| Some(symbols.join(", "));
                self.unless_equal(path, What::Symbols, listed(&theirs.symbols), listed(&own.symbols));
                self.unless_equal(path, What::Default, theirs.default.clone(), own.default.clone());
            }
            _ => {}
        }
    }

    fn fields(&mut self, path: &str, registered: &'s RecordSchema, ours: &'s RecordSchema) {
        let joined = |field: &RecordField| {
            if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) }
        };
        let mut order = Vec::new();
        for own in &ours.fields {
            let (at, theirs) = (joined(own), counterpart(own, registered, ours));
            let Some((index, theirs)) = theirs else {
                self.add(&at, What::Added, None, Some(described(own)));
                continue;
            };
            order.push(index);
            if theirs.name != own.name {
                self.add(&at, What::Renamed, Some(theirs.name.clone()), Some(own.name.clone()));
            }
            self.types(&at, &theirs.schema, &own.schema);
            let default = |field: &RecordField| field.default.as_ref().map(ToString::to_string);
            self.unless_equal(&at, What::Default, default(theirs), default(own));
            let listed = |field: &RecordField| {
                let mut names = field.aliases.clone();
                names.sort();
                (!names.is_empty()).then(|| names.join(", "))
            };
            self.unless_equal(&at, What::Aliases, listed(theirs), listed(own));
            self.unless_equal(&at, What::Documentation, theirs.doc.clone(), own.doc.clone());
        }
        for (index, theirs) in registered.fields.iter().enumerate() {
            if !order.contains(&index) {
                self.add(&joined(theirs), What::Removed, Some(described(theirs)), None);
            }
        }
        if !order.is_sorted() {
            let names = |fields: &[RecordField]| {
                Some(fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", "))
            };
            self.add(path, What::Order, names(&registered.fields), names(&ours.fields));
        }
    }
}

/// The registered field that one of ours is: by name, else by an alias of either side.
fn counterpart<'s>(
    own: &RecordField,
    registered: &'s RecordSchema,
    ours: &RecordSchema,
) -> Option<(usize, &'s RecordField)> {
    let by_name = registered.fields.iter().enumerate().find(|(_, theirs)| theirs.name == own.name);
    by_name.or_else(|| {
        registered.fields.iter().enumerate().find(|(_, theirs)| {
            let is_tied = own.aliases.contains(&theirs.name) || theirs.aliases.contains(&own.name);
            // A name that we have still is not the old one of another field.
            is_tied && ours.fields.iter().all(|field| field.name != theirs.name)
        })
    })
}

fn resolve<'s>(schema: &'s Schema, names: &NamesRef<'s>) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        _ => schema,
    }
}

fn branches(schema: &Schema) -> &[Schema] {
    match schema {
        Schema::Union(union) => union.variants(),
        _ => std::slice::from_ref(schema),
    }
}

fn is_renamed(registered: &Schema, ours: &Schema) -> bool {
    let has = |schema: &Schema, name: Option<&Name>| {
        let aliases = schema.aliases().map_or(&[][..], Vec::as_slice);
        name.is_some_and(|name| aliases.iter().any(|alias| alias.fullname(None) == name.fullname(None)))
    };
    has(ours, registered.name()) || has(registered, ours.name())
}

fn aliases(schema: &Schema) -> Option<String> {
    let mut names: Vec<_> = schema.aliases()?.iter().map(|alias: &Alias| alias.fullname(None)).collect();
    names.sort();
    (!names.is_empty()).then(|| names.join(", "))
}

fn described(field: &RecordField) -> String {
    let default =
        field.default.as_ref().map_or_else(|| "without a default".to_owned(), |value| format!("default {value}"));
    format!("{}, {default}", label(&field.schema))
}

/// A type in a few words.
fn label(schema: &Schema) -> String {
    let all = |schemas: &[Schema]| schemas.iter().map(label).collect::<Vec<_>>().join(" | ");
    match schema {
        Schema::Union(union) => all(union.variants()),
        Schema::Array(array) => format!("array of ({})", label(&array.items)),
        Schema::Map(map) => format!("map of ({})", label(&map.types)),
        Schema::Record(_) | Schema::Ref { .. } => named("record", schema),
        Schema::Enum(_) => named("enum", schema),
        Schema::Fixed(fixed) => format!("{} of {} bytes", named("fixed", schema), fixed.size),
        // Numbers, texts, and those of a logical type.
        _ => serde_json::to_string(schema).map_or_else(|_| "?".to_owned(), |text| text.trim_matches('"').to_owned()),
    }
}

fn named(kind: &str, schema: &Schema) -> String {
    schema.name().map_or_else(|| kind.to_owned(), |name| format!("{kind} {}", name.fullname(None)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;
    use serde_json::{Value, json};

    fn record(fields: Value) -> Value {
        json!({"type": "record", "name": "Event", "namespace": "io.rollcall.test", "fields": fields})
    }

    fn told(registered: &Value, ours: &Value) -> Vec<String> {
        differences(&registered.to_string(), &ours.to_string()).unwrap().iter().map(ToString::to_string).collect()
    }

    fn told_of_fields(registered: Value, ours: Value) -> Vec<String> {
        told(&record(registered), &record(ours))
    }

    #[test]
    fn equal_schemas_do_not_differ_however_they_are_written() {
        for profile in Profile::ALL {
            let text = profile.schema_json();
            let minified = serde_json::from_str::<Value>(text).unwrap().to_string();
            assert_eq!(differences(&minified, text), Ok(vec![]));
        }
        let device = json!({"type": "record", "name": "Device", "fields": []});
        let [relative, full] = ["Device", "io.rollcall.test.Device"]
            .map(|name| record(json!([{"name": "a", "type": device}, {"name": "b", "type": name}])));
        assert_eq!(told(&relative, &full), [""; 0]);
    }

    #[test]
    fn fields_that_came_and_went_are_told_with_type_and_default() {
        let registered = json!([{"name": "old", "type": "int"}]);
        let ours =
            json!([{"name": "must", "type": "string"}, {"name": "may", "type": ["null", "long"], "default": null}]);
        assert_eq!(
            told_of_fields(registered, ours),
            [
                "+ must: added, string, without a default",
                "+ may: added, null | long, default null",
                "- old: removed, was int, without a default",
            ]
        );
    }

    #[test]
    fn a_field_is_known_again_by_its_alias() {
        let registered = json!([{"name": "ip", "type": "string"}]);
        let ours = json!([{"name": "address", "aliases": ["ip"], "type": "string"}]);
        let expected = ["~ address: renamed from ip, which is an alias", "~ address: aliases none, ours ip"];
        assert_eq!(told_of_fields(registered.clone(), ours), expected);
        // Without it, it is another one.
        assert_eq!(told_of_fields(registered, json!([{"name": "address", "type": "string"}])).len(), 2);
    }

    #[test]
    fn a_record_is_known_again_by_its_alias_and_compared() {
        let of = |name: &str, aliases: Value, of: &str| {
            let field = json!({"name": "x", "type": of});
            record(
                json!([{"name": "d", "type": {"type": "record", "name": name, "aliases": aliases, "fields": [field]}}]),
            )
        };
        let told_with_alias = told(&of("Old", json!([]), "int"), &of("New", json!(["Old"]), "long"));
        assert!(told_with_alias.contains(&"~ d.x: type int, ours long".to_owned()), "{told_with_alias:?}");
        assert!(told_with_alias[0].starts_with("~ d: renamed from io.rollcall.test.Old"), "{told_with_alias:?}");
        let expected = ["~ d: type record io.rollcall.test.Old, ours record io.rollcall.test.New"];
        assert_eq!(told(&of("Old", json!([]), "int"), &of("New", json!([]), "long")), expected);
    }

    #[test]
    fn types_are_compared_through_lists_maps_and_alternatives() {
        let of = |of: Value| {
            let tag = json!({"type": "record", "name": "Tag", "fields": [{"name": "value", "type": of}]});
            json!([{"name": "tags", "type": ["null", {"type": "array", "items": {"type": "map", "values": tag}}]}])
        };
        assert_eq!(
            told_of_fields(of(json!("int")), of(json!(["null", "int"]))),
            ["~ tags[]{}.value: type int, ours null | int"]
        );
        let millis = json!({"type": "long", "logicalType": "timestamp-millis"});
        let told = told_of_fields(of(json!("long")), of(millis));
        assert!(told[0].starts_with("~ tags[]{}.value: type long, ours {") && told[0].contains("timestamp-millis"));
    }

    #[test]
    fn what_became_optional_is_still_compared_inside() {
        let device = |of: &str| json!({"type": "record", "name": "D", "fields": [{"name": "x", "type": of}]});
        let ours = json!([{"name": "d", "type": ["null", device("long")]}]);
        assert_eq!(
            told_of_fields(json!([{"name": "d", "type": device("int")}]), ours),
            [
                "~ d: type record io.rollcall.test.D, ours null | record io.rollcall.test.D",
                "~ d.x: type int, ours long"
            ]
        );
    }

    #[test]
    fn defaults_symbols_order_and_documentation_are_told_apart() {
        let registered = json!([{"name": "a", "type": "int", "default": 1}, {"name": "b", "type": "int", "doc": "x"}]);
        let ours = json!([{"name": "b", "type": "int", "doc": "y"}, {"name": "a", "type": "int", "default": 2}]);
        assert_eq!(
            told_of_fields(registered, ours),
            ["~ b: documentation", "~ a: default 1, ours 2", "~ (schema): fields in the order a, b, ours b, a"]
        );
        let of = |symbols: Value| json!([{"name": "e", "type": {"type": "enum", "name": "E", "symbols": symbols}}]);
        assert_eq!(told_of_fields(of(json!(["A"])), of(json!(["A", "B"]))), ["~ e: symbols A, ours A, B"]);
    }

    #[test]
    fn a_type_that_holds_itself_is_compared_once() {
        let of = |of: &str| record(json!([{"name": "next", "type": ["null", "Event"]}, {"name": "x", "type": of}]));
        assert_eq!(told(&of("int"), &of("long")), ["~ x: type int, ours long"]);
    }

    #[test]
    fn what_is_no_schema_is_an_error_that_says_which() {
        assert!(differences("{", "\"int\"").unwrap_err().starts_with("the registered one is not an Avro schema"));
    }
}
