//! The tools of a request as chat functions.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hasher};

use super::content::kind;
use super::context::Tool;
use crate::core::sort::sort_by;
use crate::dialect::json::{Fit, Refusal, boolean, elements, id, inside, members, required, string};
use crate::dialect::output::{Output, Separated};
use crate::dialect::raw::Raw;
use crate::limits::{MAX_FUNCTION_NAME, MAX_TOOLS};
use crate::text::beginning;

/// Tools that OpenAI's servers run. Agents list them beside their own and work without them. Prefixes of
/// types, because some end in a date.
const LEFT_OUT: &[&str] = &["image_generation", "tool_search", "web_search"];

/// Description of a free-form tool's parameter for the model, as JSON.
const ONE_STRING: &str = "Give the whole free-form input as the string `input`.";
const OF_GRAMMAR: &str = " The input follows this grammar";

/// The written functions.
#[derive(Default)]
pub(super) struct Tools {
    list: Separated,
    /// Hashes of all names.
    names: Vec<u64>,
    /// Tools that are no plain functions.
    special: Vec<Tool>,
    /// The first omitted tool.
    left_out: Option<Refusal>,
}

impl Tools {
    /// Writes the tools of a request, if it has any.
    pub(super) fn write(out: &mut Output, tools: Option<Raw<'_>>) -> Fit<Self> {
        let mut written = Self::default();
        let Some(tools) = tools else { return Ok(written) };
        elements(tools, |at, tool| match &*kind(tool)? {
            "namespace" => written.write_namespace(out, tool),
            other if LEFT_OUT.iter().any(|kind| other.starts_with(kind)) => {
                written.left_out.get_or_insert_with(|| Refusal::of_value(other).within("type").within(at));
                Ok(())
            }
            kind => written.write_tool(out, kind, tool, None),
        })?;
        if written.is_empty() {
            // The only tools are omitted ones: the model cannot do what the request asks.
            return written.left_out.take().map_or(Ok(written), Err);
        }
        out.write(&["]"]);
        sort_by(&mut written.names, Ord::cmp);
        if written.names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::expected("", "each tool's name once"));
        }
        Ok(written)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.list.is_begun()
    }

    /// The tools that are no plain functions.
    pub(super) fn into_special(self) -> Vec<Tool> {
        self.special
    }

    fn write_namespace(&mut self, out: &mut Output, namespace: Raw<'_>) -> Fit<()> {
        let (mut its_name, mut tools) = (None, None);
        members(namespace, |key, value| {
            match key {
                "type" | "description" => {}
                "name" => its_name = Some(name(value)?),
                "tools" => tools = Some(value),
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        let its_name = its_name.ok_or_else(|| Refusal::expected("name", "a string"))?;
        elements(required(tools, "tools")?, |_, tool| {
            self.write_tool(out, &kind(tool)?, tool, Some(&its_name))
        })
        .map_err(|refusal| refusal.within("tools"))
    }

    fn write_tool(
        &mut self,
        out: &mut Output,
        kind: &str,
        tool: Raw<'_>,
        namespace: Option<&str>,
    ) -> Fit<()> {
        let is_custom = match kind {
            "function" => false,
            "custom" => true,
            other => return Err(Refusal::of_value(other).within("type")),
        };
        if self.names.len() == MAX_TOOLS {
            return Err(Refusal::expected("", "at most 256 tools"));
        }
        let (mut its_name, mut description, mut parameters, mut grammar) = (None, None, None, None);
        let mut is_strict = false;
        members(tool, |key, value| {
            match key {
                // A tool to be found later is available from the start.
                "type" | "defer_loading" | "output_schema" => {}
                "name" => its_name = Some(name(value)?),
                "description" => description = Some(inside(value)?),
                "allowed_callers" => elements(value, |_, caller| match &*string(caller)? {
                    "direct" => Ok(()),
                    other => Err(Refusal::of_value(other)),
                })?,
                "parameters" if !is_custom => {
                    members(value, |_, _| Ok(())).map(|()| parameters = Some(value))?;
                }
                "strict" if !is_custom => is_strict = boolean(value)?,
                "format" if is_custom => grammar = Grammar::of(value)?,
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        let its_name = its_name.ok_or_else(|| Refusal::expected("name", "a string"))?;
        let chat_name = chat_name(namespace, &its_name);
        out.write(if self.is_empty() { &[",\"tools\":["] } else { &[] });
        self.list.next(out);
        out.write(&["{\"type\":\"function\",\"function\":{\"name\":"]);
        out.string(&chat_name);
        if is_custom {
            write_custom(out, description, grammar.as_ref());
        } else {
            if let Some(description) = description {
                out.write(&[",\"description\":\"", description, "\""]);
            }
            let parameters = parameters.map_or("{\"type\":\"object\",\"properties\":{}}", Raw::get);
            out.write(&[",\"parameters\":", parameters, if is_strict { ",\"strict\":true" } else { "" }]);
        }
        out.write(&["}}"]);
        self.names.push(hash(&chat_name));
        if is_custom || namespace.is_some() {
            let (chat_name, name) = (chat_name.into_owned(), its_name.clone().into_owned());
            self.special.push(Tool { chat_name, name, namespace: namespace.map(str::to_owned), is_custom });
        }
        Ok(())
    }
}

const _: () = assert!(MAX_TOOLS == 256, "an error names it");

/// The grammar of a free-form tool's input, its parts as JSON.
struct Grammar<'a> {
    syntax: &'a str,
    definition: &'a str,
}

impl<'a> Grammar<'a> {
    fn of(format: Raw<'a>) -> Fit<Option<Self>> {
        let (mut syntax, mut definition) = ("", "");
        members(format, |key, value| {
            match key {
                "type" => {}
                "syntax" => syntax = inside(value)?,
                "definition" => definition = inside(value)?,
                _ => return Err(Refusal::not_carried("")),
            }
            Ok(())
        })?;
        match &*kind(format)? {
            "text" => Ok(None),
            "grammar" => Ok(Some(Self { syntax, definition })),
            other => Err(Refusal::of_value(other).within("type")),
        }
    }
}

/// A free-form tool takes one string; chat cannot enforce a grammar, so the model reads it.
fn write_custom(out: &mut Output, description: Option<&str>, grammar: Option<&Grammar<'_>>) {
    let lead = description.filter(|description| !description.is_empty());
    out.write(&[",\"description\":\"", lead.unwrap_or_default(), if lead.is_some() { "\\n\\n" } else { "" }]);
    out.write(&[ONE_STRING]);
    if let Some(Grammar { syntax, definition }) = grammar {
        out.write(&[OF_GRAMMAR, " (", syntax, "):\\n", definition]);
    }
    let parameters =
        "{\"type\":\"object\",\"properties\":{\"input\":{\"type\":\"string\"}},\"required\":[\"input\"]}";
    out.write(&["\",\"parameters\":", parameters]);
}

/// A name, bounded because it is written more than once.
pub(super) fn name(raw: Raw<'_>) -> Fit<Cow<'_, str>> {
    id(raw).and_then(|_| string(raw))
}

/// The chat name of a tool in a namespace. OpenAI refuses names over [`MAX_FUNCTION_NAME`]: they are cut and
/// made unique by a hash.
pub(super) fn chat_name<'a>(namespace: Option<&str>, name: &'a str) -> Cow<'a, str> {
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else {
        return Cow::Borrowed(name);
    };
    let between = if namespace.ends_with("__") { "" } else { "__" };
    let whole = format!("{namespace}{between}{name}");
    if whole.len() <= MAX_FUNCTION_NAME {
        return Cow::Owned(whole);
    }
    let end = format!("_{:08x}", hash(&whole) as u32);
    Cow::Owned(beginning(&whole, MAX_FUNCTION_NAME - end.len()).to_owned() + &end)
}

/// The same in every process, because a name is in the history of later requests.
fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Writes which tool the model must call. Without tools a choice that forbids nothing is omitted, because
/// chat refuses it.
pub(super) fn write_tool_choice(out: &mut Output, choice: Raw<'_>, is_without_tools: bool) -> Fit<()> {
    if choice.get().starts_with('"') {
        match &*string(choice)? {
            "auto" | "none" if is_without_tools => {}
            "auto" | "none" | "required" => out.write(&[",\"tool_choice\":", choice.get()]),
            _ => return Err(Refusal::expected("", "auto, none or required")),
        }
        return Ok(());
    }
    let (mut its_name, mut namespace) = (None, None);
    let chosen = kind(choice)?;
    members(choice, |key, value| {
        match (&*chosen, key) {
            ("function" | "custom", "name") => its_name = Some(name(value)?),
            ("function" | "custom", "namespace") => namespace = Some(name(value)?),
            ("function" | "custom", "type") => {}
            ("function" | "custom", _) => return Err(Refusal::not_carried("")),
            _ => {}
        }
        Ok(())
    })?;
    let Some(name) = its_name else {
        return Err(match &*chosen {
            "function" | "custom" => Refusal::expected("name", "a string"),
            other => Refusal::of_value(other).within("type"),
        });
    };
    out.write(&[",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"]);
    out.string(&chat_name(namespace.as_deref(), &name));
    out.write(&["}}"]);
    Ok(())
}
