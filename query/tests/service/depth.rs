//! Statements that would make the parser, the planner or later steps recurse too deeply. A stack overflow aborts the
//! process, and with it this test: its end is the proof, in a debug build, where frames are largest.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::timeout;

use crate::{
    postgres::{connect, text},
    world::{SECRET, Served, World},
};

/// How long an answer may take: the time of a statement and more.
const PATIENCE: Duration = Duration::from_secs(90);

/// A kind of recursion, `n` levels deep.
type Kind = (&'static str, fn(usize) -> String);

/// Chains: as deep as they are long.
const CHAINS: [Kind; 24] = [
    ("sum", |n| format!("select {}", vec!["1"; n].join("+"))),
    ("concatenation", |n| format!("select {}", vec!["'a'"; n].join("||"))),
    ("conjunction", |n| format!("select 1 from flows where {}", vec!["cpu > 1"; n].join(" and "))),
    ("disjunction", |n| format!("select 1 from flows where {}", vec!["node = 'x' or cpu = 1"; n].join(" or "))),
    ("comparison", |n| format!("select true{}", " = true".repeat(n))),
    ("is null", |n| format!("select 1{}", " is null".repeat(n))),
    ("is distinct from", |n| format!("select 1{}", " is distinct from 1".repeat(n))),
    ("notnull", |n| format!("select 1{}", " notnull".repeat(n))),
    ("cast", |n| format!("select 1{}", "::bigint".repeat(n))),
    ("subscript", |n| format!("select array[1]{}", "[1]".repeat(n))),
    ("field", |n| format!("select source_labels{} from flows", ".app".repeat(n))),
    ("array type", |n| format!("select null::int{}", "[]".repeat(n))),
    ("collate", |n| format!("select 'a'{}", " collate \"C\"".repeat(n))),
    ("time zone", |n| format!("select now(){}", " at time zone 'UTC'".repeat(n))),
    ("between", |n| format!("select 1{}", " between 1 and 2".repeat(n))),
    ("like", |n| format!("select 'a'{}", " like 'a'".repeat(n))),
    ("json", |n| format!("select '{{}}'{}", "->'a'".repeat(n))),
    ("in", |n| format!("select 1{}", " in (1)".repeat(n))),
    ("power", |n| format!("select {}", vec!["1"; n].join("^"))),
    ("bits", |n| format!("select {}", vec!["1"; n].join("<<"))),
    ("case", |n| format!("select case {} end", "when cpu = 1 then 2 ".repeat(n))),
    ("interval", |n| format!("select {}'1 day'", "interval ".repeat(n))),
    ("explain", |n| format!("{}select 1", "explain ".repeat(n))),
    ("type", |n| format!("select null::{}int{}", "array<".repeat(n), ">".repeat(n))),
];

/// The parser's own limit, or that of brackets, holds for these.
const NESTINGS: [Kind; 18] = [
    ("minus", |n| format!("select {}1", "- ".repeat(n))),
    ("not", |n| format!("select {}true", "not ".repeat(n))),
    ("not exists", |n| format!("select {}true", "not exists ".repeat(n))),
    ("brackets", |n| format!("select {}1{}", "(".repeat(n), ")".repeat(n))),
    ("sum of brackets", |n| format!("select {}1{}", "(1+".repeat(n), ")".repeat(n))),
    ("open brackets", |n| format!("select {}", "(".repeat(n))),
    ("function", |n| format!("select {}1{}", "abs(".repeat(n), ")".repeat(n))),
    ("array", |n| format!("select {}1{}", "array[".repeat(n), "]".repeat(n))),
    ("list", |n| format!("select array{}1{}", "[".repeat(n), "]".repeat(n))),
    ("case in case", |n| format!("select {}1{}", "case when true then ".repeat(n), " end".repeat(n))),
    ("case of case", |n| format!("select {}1", "case ".repeat(n))),
    ("cast in cast", |n| format!("select {}1{}", "cast(".repeat(n), " as bigint)".repeat(n))),
    ("subquery", |n| format!("select {}1{}", "(select ".repeat(n), ")".repeat(n))),
    ("table", |n| format!("{}select 1{}", "select * from (".repeat(n), ") t".repeat(n))),
    ("join", |n| format!("select 1 from {}flows{}", "(".repeat(n), ")".repeat(n))),
    ("in subquery", |n| format!("select 1{}{}", " where 1 in (select 1".repeat(n), ")".repeat(n))),
    ("with", |n| format!("{}select 1{}", "with t as (".repeat(n), ") select * from t".repeat(n))),
    ("prepare", |n| format!("{}select 1", "prepare p as ".repeat(n))),
];

/// Lists that make the plan deeper.
const RELATIONS: [Kind; 9] = [
    ("tables", |n| format!("select 1 from gaps t0{}", (1..n).map(|i| format!(", gaps t{i}")).collect::<String>())),
    ("joins", |n| {
        format!(
            "select 1 from gaps t0{}",
            (1..n).map(|i| format!(" join gaps t{i} on t{i}.node = t0.node")).collect::<String>()
        )
    }),
    ("union", |n| vec!["select 1"; n].join(" union ")),
    ("except", |n| vec!["select 1"; n].join(" except ")),
    ("windows", |n| {
        let window = |i| format!("sum(cpu) over (partition by node order by cpu + {i})");
        format!("select {} from flows", (0..n).map(window).collect::<Vec<_>>().join(", "))
    }),
    ("scalar subqueries", |n| format!("select {}", vec!["(select max(cpu) from flows)"; n].join(", "))),
    ("values", |n| {
        format!("select 1 from {}", (0..n).map(|i| format!("(values (1)) v{i}")).collect::<Vec<_>>().join(", "))
    }),
    ("lateral", |n| format!("select 1 from gaps{}", ", lateral (select 1)".repeat(n))),
    ("names", |n| {
        let one = |i: usize| format!("t{i} as (select * from t{})", i.saturating_sub(1));
        let more: Vec<String> = std::iter::once("t0 as (select 1)".to_owned()).chain((1..n).map(one)).collect();
        format!("with {} select * from t{}", more.join(", "), n.saturating_sub(1))
    }),
];

/// Any answer, in time. A statement before it may still be planned, which takes its thread.
async fn answered(served: &Served, statement: &str, name: &str) -> (u16, String) {
    let begun = Instant::now();
    loop {
        let answer = timeout(PATIENCE, served.sql(statement)).await;
        let (status, body) = answer.unwrap_or_else(|_| panic!("{name} has no answer"));
        if status == 503 && begun.elapsed() < PATIENCE {
            continue;
        }
        assert!(matches!(status, 200 | 400 | 403 | 422 | 500 | 504), "{name}: {status} {body}");
        return (status, body["message"].as_str().unwrap_or_default().to_owned());
    }
}

/// The largest number of levels, up to `most`, that is not refused for its depth.
async fn largest(served: &Served, (name, statement): Kind, most: usize) -> usize {
    let (mut passes, mut fails) = (1, most + 1);
    while fails - passes > 1 {
        let middle = passes.midpoint(fails);
        match netverdict_query::guard::check(&statement(middle)) {
            Ok(()) => passes = middle,
            Err(_) => fails = middle,
        }
    }
    let (status, message) = answered(served, &statement(passes), name).await;
    println!("{name}: {passes} levels: {status} {message:.120}");
    passes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_at_the_limits_is_answered() {
    let world = World::new().await;
    let served = world.serve().await;
    for kind in CHAINS.into_iter().chain(NESTINGS).chain(RELATIONS) {
        let (name, statement) = kind;
        let most = largest(&served, kind, 2_000).await;
        assert!(most > 8, "{name} is refused from {most} on");
        // A syntax error after all of it is parsed: the tree is dropped at once.
        answered(&served, &format!("{} from from", statement(most - 2)), name).await;
    }
    let sum = CHAINS[0].1(500);
    assert_eq!(served.value(&sum).await, json!(500));
    // Each step is small, and their sum is not.
    let step = |i: usize| format!("t{i} as (select array{}x{} as x from t{})", "[".repeat(14), "]".repeat(14), i - 1);
    let steps = (1..60).map(step).collect::<Vec<_>>().join(", ");
    let (status, message) =
        answered(&served, &format!("with t0 as (select 1 as x), {steps} select x from t59"), "types").await;
    assert!(status == 422 && message.contains("types of at most 64 levels"), "{status} {message}");
    let wide = format!("select 1 in ({}2)", "2, ".repeat(8_000));
    assert_eq!(served.value(&wide).await, json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_above_the_limits_is_refused_at_every_door() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let mut statements: Vec<(String, String)> = Vec::new();
    for (name, statement) in CHAINS.into_iter().chain(NESTINGS).chain(RELATIONS) {
        for levels in [1_100, 3_000] {
            statements.push((format!("{name} × {levels}"), statement(levels)));
            statements.push((format!("{name} × {levels} from from"), format!("{} from from", statement(levels))));
        }
    }
    statements.push(("a sum of 240 kB".into(), format!("select {} from from", vec!["1"; 120_000].join("+"))));
    statements.push(("a type".into(), format!("select arrow_cast(1, '{}')", "List(".repeat(12_000))));
    statements.push(("half a type".into(), format!("select arrow_cast(1, $${}$$)", "List(".repeat(6_000))));
    statements.push(("arrays in a text".into(), format!("select '{}'::int[]", "{".repeat(30_000))));
    for (name, statement) in &statements {
        let (status, message) = answered(&served, statement, name).await;
        assert!(
            status == 422 && (message.contains("at most") || message.contains("50 levels")),
            "{name}: {status} {message}"
        );
        let simple = text(&client, statement).await.expect_err(name);
        assert!(simple.starts_with("54001: "), "{name} in the simple protocol: {simple}");
        let simple = text(&client, &format!("prepare p as {statement}")).await.expect_err(name);
        assert!(simple.starts_with("54001: "), "{name} prepared by SQL: {simple}");
        let extended = client.prepare(statement).await.err().unwrap_or_else(|| panic!("{name} was prepared"));
        let code = extended.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("54001"), "{name} in the extended protocol: {extended}");
    }
    for set in ["set application_name = ", "set statement_timeout = ", "set time zone "] {
        let refused = text(&client, &format!("{set}{}", vec!["1"; 450].join("+"))).await;
        assert!(refused.expect_err(set).starts_with("22023: "), "{set}");
        let refused = text(&client, &format!("{set}{}", vec!["1"; 20_000].join("+"))).await;
        assert!(refused.expect_err(set).starts_with("54001: "), "{set}");
    }
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
    assert_eq!(served.value("select 1").await, json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn deep_statements_are_answered_over_postgres() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let chains = CHAINS.into_iter().map(|kind| (kind, 240));
    let others = NESTINGS.into_iter().map(|kind| (kind, 10)).chain(RELATIONS.into_iter().map(|kind| (kind, 20)));
    for ((name, statement), levels) in chains.chain(others) {
        let statement = statement(levels);
        let simple = timeout(PATIENCE, text(&client, &statement)).await;
        simple.unwrap_or_else(|_| panic!("{name} × {levels} has no answer")).ok();
        // Prepared, described, and dropped by a thread with a small stack.
        let extended = timeout(PATIENCE, client.query(statement.as_str(), &[])).await;
        extended.unwrap_or_else(|_| panic!("{name} × {levels} has no answer")).ok();
    }
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_values_and_no_statements() {
    let world = World::new().await;
    let served = world.serve().await;
    let chain = vec!["1"; 3_000].join("%2B");
    let brackets = "(".repeat(3_000);
    for value in [&chain, &brackets] {
        for path in [
            format!("/v1/flows?pod={value}"),
            format!("/v1/flows?namespace={value}"),
            format!("/v1/flows?policy={value}"),
            format!("/v1/flows?source={value}"),
            format!("/v1/flows?since={value}"),
            format!("/v1/flows?after={value}"),
            format!("/v1/why?source={value}&destination=db/pg"),
            format!("/v1/why?source=shop/web&destination=db/pg&protocol={value}"),
            format!("/v1/why?source=shop/web&destination=db/pg&at={value}"),
        ] {
            let (status, body) = served.get(&path).await;
            assert!(matches!(status, 200 | 400), "{path:.60}: {status} {body}");
        }
    }
    assert_eq!(served.value("select 1").await, json!(1));
}
