//! Limits on a statement's text, checked before it is parsed.
//!
//! Parsing, planning, optimizing, evaluating and even dropping a syntax tree recurse as deep as the tree is, and a stack
//! overflow aborts the process. sqlparser limits only the recursion of its own parser: `1+1+1+…` is parsed by a loop, and
//! the tree is as deep as the text is long. So the depth is bounded here, from the tokens alone.
//!
//! The grammar is not known here, so the bound is a rough one that holds for any grammar: every level of a tree
//! needs at least one token, and only commas separate parts that do not stand inside each other. So the tokens of one
//! list item, plus those of the deepest bracket within it, bound the depth. Long lists (`in (1, 2, …)`) cost nothing.
//!
//! Some parts of a list do make the *plan* deeper: joined tables, subqueries, windows. They are counted.

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Token, Tokenizer},
};

use crate::error::{NEST_LESS, QueryError};

/// Longest text of a statement, in bytes.
pub const MAX_STATEMENT: usize = 64 * 1024;
/// Most tokens on the path to the deepest part of a statement. An `or` of 250 comparisons has as many.
/// The stack of a statement's thread (`threads::STACK`) is measured to be enough for it.
const MAX_DEPTH: usize = 1_000;
/// Most brackets within each other. sqlparser tries some of them in more than one way, which takes twice the time with each
/// level (32 calls of `abs` in each other take minutes); its own limit of 50 levels does not help.
const MAX_BRACKETS: usize = 16;
/// Most brackets within each other inside of a quoted text: some functions parse their arguments, and recurse in doing so
/// (`arrow_cast(x, 'List(List(…))')`).
const MAX_QUOTED_BRACKETS: usize = 64;
/// Most tables, joins, subqueries, set operations and windows. Each is one level of a plan or more.
const MAX_RELATIONS: usize = 100;

/// Refuses a text whose statement could be too deep for a stack.
///
/// # Errors
/// When a limit is exceeded, or the text cannot be divided into tokens.
pub fn check(text: &str) -> Result<(), QueryError> {
    check_length(text)?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().map_err(|error| {
        // As the parser would say it.
        QueryError::BadSql(error.to_string())
    })?;
    let mut scan = Scan::default();
    for token in &tokens {
        scan.token(token)?;
    }
    scan.end()
}

/// # Errors
/// When the text is longer than [`MAX_STATEMENT`].
pub fn check_length(text: &str) -> Result<(), QueryError> {
    if text.len() <= MAX_STATEMENT {
        return Ok(());
    }
    Err(QueryError::TooComplex {
        message: format!("expected a statement of at most {MAX_STATEMENT} bytes, found {}", text.len()),
        remedy: "ask in parts",
    })
}

/// State of the scan.
#[derive(Default)]
struct Scan {
    /// The brackets that are open, the innermost last.
    open: Vec<Level>,
    level: Level,
    relations: usize,
}

/// Tokens between two brackets, or outside of all brackets.
#[derive(Default)]
struct Level {
    /// Tokens of the list item at hand.
    tokens: usize,
    /// The depth of the deepest bracket in the item at hand.
    inner: usize,
    /// The depth of the deepest item before it.
    deepest: usize,
    /// The items are tables: DataFusion joins them one after another.
    tables: bool,
}

impl Level {
    fn end_item(&mut self) {
        self.deepest = self.deepest.max(self.tokens + self.inner);
        (self.tokens, self.inner) = (0, 0);
    }
}

impl Scan {
    fn token(&mut self, token: &Token) -> Result<(), QueryError> {
        match token {
            Token::Whitespace(_) => return Ok(()),
            Token::LParen | Token::LBracket | Token::LBrace => {
                self.level.tokens += 1;
                self.open.push(std::mem::take(&mut self.level));
                if self.open.len() > MAX_BRACKETS {
                    return Err(QueryError::TooComplex {
                        message: format!("expected at most {MAX_BRACKETS} brackets within each other, found more"),
                        remedy: NEST_LESS,
                    });
                }
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => {
                self.relations += usize::from(self.level.tables);
                self.level.end_item();
            }
            Token::SemiColon => {
                self.end()?;
                *self = Self::default();
            }
            Token::Word(word) => {
                self.level.tokens += 1;
                self.word(word.keyword);
            }
            Token::SingleQuotedString(text)
            | Token::EscapedStringLiteral(text)
            | Token::UnicodeStringLiteral(text)
            | Token::NationalStringLiteral(text) => self.quoted(text)?,
            Token::DollarQuotedString(text) => self.quoted(&text.value)?,
            _ => self.level.tokens += 1,
        }
        // Not only at the end: of many tokens in a wrong place the first ones are enough.
        if self.relations > MAX_RELATIONS {
            return Err(QueryError::TooComplex {
                message: format!(
                    "expected at most {MAX_RELATIONS} tables, joins, subqueries, set operations and windows in a statement"
                ),
                remedy: "ask in parts",
            });
        }
        Ok(())
    }

    fn word(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::SELECT => {
                self.level.tables = false;
                self.relations += 1;
            }
            // For any list after it: telling tables from, say, columns to order by would need a parser.
            Keyword::FROM => self.level.tables = true,
            Keyword::JOIN
            | Keyword::APPLY
            | Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::MINUS
            | Keyword::VALUES
            | Keyword::OVER
            | Keyword::PIVOT
            | Keyword::UNPIVOT => self.relations += 1,
            _ => {}
        }
    }

    fn quoted(&mut self, text: &str) -> Result<(), QueryError> {
        self.level.tokens += 1;
        let (mut open, mut most) = (0_usize, 0);
        for byte in text.bytes() {
            match byte {
                b'(' | b'[' | b'{' | b'<' => open += 1,
                b')' | b']' | b'}' | b'>' => open = open.saturating_sub(1),
                _ => {}
            }
            most = most.max(open);
        }
        if most <= MAX_QUOTED_BRACKETS {
            return Ok(());
        }
        Err(QueryError::TooComplex {
            message: format!(
                "expected at most {MAX_QUOTED_BRACKETS} brackets within each other in a quoted text, found {most}"
            ),
            remedy: "close brackets before more are opened",
        })
    }

    fn close(&mut self) {
        self.level.tokens += 1;
        // A bracket that closes nothing is a syntax error, which the parser explains.
        if let Some(outer) = self.open.pop() {
            self.level.end_item();
            let depth = self.level.deepest;
            self.level = outer;
            self.level.tokens += 1;
            self.level.inner = self.level.inner.max(depth);
        }
    }

    fn end(&mut self) -> Result<(), QueryError> {
        while !self.open.is_empty() {
            self.close();
        }
        self.level.end_item();
        if self.level.deepest <= MAX_DEPTH {
            return Ok(());
        }
        Err(QueryError::TooComplex {
            message: format!(
                "expected at most {MAX_DEPTH} words and signs in the largest expression of a statement, found {}",
                self.level.deepest
            ),
            remedy: "write a list, `x in (1, 2, 3)`, in place of a chain, `x = 1 or x = 2 or x = 3`, or ask in parts",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> Option<String> {
        check(text).err().map(|error| error.to_string())
    }

    #[test]
    fn what_people_and_dashboards_write_passes() {
        let list = format!("select * from flows where source_port in ({})", vec!["1"; 8_000].join(", "));
        let chain = format!("select * from flows f where {}", vec!["port = 1"; 240].join(" or "));
        let columns = format!("select {} from flows order by 1, 2", vec!["a.b + 1"; 2_000].join(", "));
        let brackets = format!("select {}1{}", "(".repeat(MAX_BRACKETS), ")".repeat(MAX_BRACKETS));
        for text in [list, chain, columns, brackets, "select '((((('".into(), String::new(), ")))".into()] {
            assert_eq!(refusal(&text), None, "{}", &text[..text.len().min(80)]);
        }
    }

    #[test]
    fn chains_are_counted_along_the_deepest_path() {
        let sum = |terms: usize| vec!["1"; terms].join("+");
        // `select` and 2n - 1 tokens.
        assert_eq!(refusal(&format!("select {}", sum(500))), None);
        assert!(refusal(&format!("select {}", sum(501))).is_some_and(|error| error.ends_with("found 1002")));
        // Side by side they do not add up; within each other they do, before and after the bracket.
        assert_eq!(refusal(&format!("select {}, {}, ({})", sum(450), sum(450), sum(450))), None);
        assert!(refusal(&format!("select {}+(1, {})", sum(260), sum(260))).is_some());
        assert!(refusal(&format!("select ({})+{}", sum(260), sum(260))).is_some());
        assert!(refusal(&format!("select (2, ({}), 3)+{}", sum(260), sum(260))).is_some());
        // Brackets that are never closed count as well.
        assert!(refusal(&format!("select ({}+({}", sum(260), sum(260))).is_some());
        // Each statement has the limit for itself.
        assert_eq!(refusal(&format!("select {}; select {}", sum(450), sum(450))), None);
        assert!(refusal(&format!("select {}; select 1", sum(501))).is_some());
    }

    #[test]
    fn brackets_and_relations_are_counted() {
        let deep = "(".repeat(MAX_BRACKETS + 1);
        assert!(refusal(&format!("select {deep}")).is_some_and(|error| error.contains("at most 16 brackets")));
        let types = "List(".repeat(MAX_QUOTED_BRACKETS + 1);
        for quoted in [format!("'{types}'"), format!("e'{types}'"), format!("$${types}$$"), format!("$x${types}$x$")] {
            let refused = refusal(&format!("select arrow_cast(1, {quoted})"));
            assert!(refused.is_some_and(|error| error.contains("at most 64 brackets")), "{quoted}");
        }
        for part in [" union select 1", " join t on true", ", t", ", (select 1)"] {
            assert_eq!(refusal(&format!("select 1 from t{}", part.repeat(48))), None, "{part}");
            let refused = refusal(&format!("select 1 from t{}", part.repeat(101)));
            assert!(refused.is_some_and(|error| error.contains("at most 100 tables")), "{part}");
        }
    }
}
