"""Groups of words by which one task is told from another.

Each value lists words, and phrases of up to three words, between commas. ``OPENERS`` count where
they open a sentence or a clause of what is asked, ``GROUPS`` wherever they stand in it. What each
group is worth for each task stands in ``tasks.json``. ``dispatcher/task_facts.py`` reads both, and
is not loaded before somebody asks.
"""

from __future__ import annotations

OPENERS: dict[str, str] = {
    "make": (
        "write, create, make, build, generate, implement, develop, produce, craft, code, program, "
        "draft, compose, design, prepare, provide, scaffold, show, give me, give, set up, come "
        "up, put together, schreib, schreibe, erstelle, generiere, écris, crée, génère, escribe, "
        "crea, genera, haz, complete, invent, plan, outline, model, print, display"
    ),
    "change": (
        "add, remove, rename, refactor, convert, port, migrate, replace, upgrade, bump, update, "
        "split, translate, rewrite, delete, drop, move, extend, modernize, modernise, wrap, "
        "optimize, optimise, change, prevent, allow, support, enable, disable, undo, install, "
        "hide, merge, inline, simplify, extract, adapt, make, switch, turn, expose, introduce, "
        "clean up, use, let, deprecate, ensure, handle, configure, define, apply, validate, "
        "parse, restrict, limit, skip, sanitize, escape, format, order, sort, filter, paginate, "
        "normalize, group, encrypt, hash, mock, patch, backport, revert, reorganize, restructure, "
        "decouple, hook, pass, return, cast, pin, unpin, align, style, center, resize, get rid "
        "of, reuse, bulk, cache, cover, expand, parallelize"
    ),
    "look": (
        "find, list, count, show, search, look, check, see, get, look at, look up, look for, "
        "identify, detect, determine, locate, tell me, report on"
    ),
    "ask": (
        "what, which, who, whom, whose, when, where, why, how, is, are, was, were, do, does, did, "
        "has, have, am, if, wer, wie, warum, wo, wann, welche, quel, quelle, quels, comment, "
        "pourquoi, qué, cuál, cómo, cuándo, por, isn't, aren't, doesn't"
    ),
    "explain": (
        "explain, describe, define, discuss, compare, tell me about, tell me, elaborate, teach, "
        "walk me, erkläre, explique, explica, talk about, introduce, outline"
    ),
    "reckon": (
        "calculate, compute, solve, prove, show that, estimate, evaluate, derive, simplify, "
        "factor, integrate, differentiate, determine, berechne, calcule, calcula, work out, how "
        "many, how much, how long, how far, how old, how fast, if"
    ),
    "judge": (
        "review, audit, critique, assess, inspect, check, evaluate, rate, examine, comment, look "
        "over, go over, go through, point out, approve, take a look, give feedback, analyze, "
        "analyse, scan, flag, verify, criticize, überprüfe"
    ),
    "mend": (
        "fix, debug, repair, correct, resolve, diagnose, trace, investigate, troubleshoot, track, "
        "track down, find out, find the bug, find why, figure out, narrow down, bisect, behebe, "
        "corrige"
    ),
    "shorten": (
        "summarize, summarise, condense, shorten, recap, distill, distil, synthesize, synthesise, "
        "tldr, boil, reduce, abridge, sum up, fasse, résume, résumez, resume, resuma, extract the "
        "key, trim, compress"
    ),
    "measure": (
        "plot, chart, graph, visualize, visualise, correlate, tabulate, aggregate, analyze, "
        "analyse, interpret, calculate, compute, compare, group, group by, test, rank, draw a "
        "histogram, draw, cluster, forecast"
    ),
    "deed": (
        "send, notify, execute, post, email, mail, message, text, alert, invite, book, order, "
        "buy, pay, call, schedule, remind, upload, download, fetch, forward, label, backup, back, "
        "reply, share, cancel, reserve, sync, run, trigger, submit, transfer, deploy, publish, "
        "subscribe, log, record, play, turn, register, apply, assign, close, open, archive, move, "
        "wait, retry, watch, monitor, pause, start, place, inform, ask, set, save, store, append, "
        "insert, update, page, back up, set a, put it, let me know, tell, sign up, book a, order "
        "a"
    ),
    "pose": (
        "act, pretend, imagine, roleplay, role play, let's play, play, you are, you're, suppose "
        "you, simulate, behave, speak as, as a, as an"
    ),
    "rework": (
        "translate, übersetze, traduis, traduce, rephrase, paraphrase, proofread, reword, "
        "rewrite, polish, edit, correct, improve, change the tone, fix the grammar, make it, make "
        "this, turn these, turn this"
    ),
    "sort": (
        "classify, categorize, categorise, label, rate, sort, decide, extract, tag, rank, pick, "
        "choose, match"
    ),
    "suggest": (
        "suggest, recommend, brainstorm, propose, list, name, give, think of, give me some, help me"
    ),
    "greet": (
        "hi, hello, hey, thanks, thank, good morning, good evening, danke, merci, hola, bye, ok, "
        "thank you, hallo, bonjour"
    ),
}

GROUPS: dict[str, str] = {
    "code word": (
        "code, function, functions, method, methods, class, classes, script, scripts, program, "
        "snippet, subroutine, module, package, library, decorator, component, components, "
        "endpoint, endpoints, route, handler, middleware, api, sdk, web app, app, website, web "
        "page, webpage, landing page, plugin, extension, bot, cli, command line, one liner, "
        "command, commands, macro, userscript, shader, unit test, unit tests, tests, test suite, "
        "boilerplate, type hints, docstring, docstrings, callbacks, promises, implementation, "
        "algorithm, data structure, linked list, binary tree, hash map, array, arrays, loop, "
        "loops, string, strings, integer, variable, variables, interface, struct, enum, trait, "
        "skript, funktion, código, función, fonction, programm, source code, codebase, pipeline, "
        "config, button, navbar, modal, form, layout, page, screen, tool, game, crud"
    ),
    "query word": (
        "sql, query, select, join, stored procedure, database schema, schema, index, migration, "
        "migrations, formula, excel formula, regex, regexp, regular expression, cron, crontab, "
        "cron syntax, cron job, dockerfile, makefile, docker compose, config file, conf, "
        "configuration file, html, css, xml, json, yaml, toml, gitignore, vlookup, pivot"
    ),
    "language": (
        "python, javascript, typescript, java, kotlin, rust, golang, c++, c#, php, ruby, perl, "
        "bash, shell, powershell, mysql, postgres, postgresql, sqlite, mongodb, clickhouse, "
        "react, vue, angular, svelte, sveltekit, django, flask, fastapi, laravel, rails, node, "
        "nodejs, node.js, haskell, scala, swift, matlab, lua, terraform, ansible, pandas, numpy, "
        "seaborn, matplotlib, vba, xaml, wpf, graphql, nginx, apache, docker, ffmpeg, git, "
        "jquery, tailwind, next.js, express, spring, cuda, opengl, metal, unity, unreal, arduino, "
        "pytest, jest, webpack, vite, sqlalchemy, pydantic, pytorch, tensorflow, clojure, elixir, "
        "erlang, ocaml, fortran, cobol, assembly, solidity, dart, flutter, android, ios, swiftui, "
        "qt, tkinter, pygame, autocad, lisp, prolog, zig, julia, sas, stata, awk, sed, grep, jq, "
        "curl, selenium, playwright, google sheets, excel, apps script, in c, in go, in r"
    ),
    "repository": (
        "codebase, repo, repository, pull request, pull requests, pr, prs, merge request, diff, "
        "diffs, commit, commits, branch, patch, source code, code changes, code change, proposed "
        "changes, changes"
    ),
    "shell word": (
        "file, files, folder, folders, directory, directories, process, processes, disk, disk "
        "usage, memory, port, ports, permissions, symlink, zip, unzip, tar, archive, tar gz, "
        "user, environment variable, network interface, human readable, hidden files, "
        "recursively, terminal, whole file, older than, larger than, more than"
    ),
    "review word": (
        "review, reviews, reviewing, reviewer, audit, critique, feedback, code review, security "
        "review, code smells, code smell, best practices, quality, code quality, readability, "
        "maintainability, maintainable, technical debt, thread safe, conventions, idiomatic, anti "
        "patterns, test coverage, coverage, breaking changes, security issues, security problems, "
        "performance concerns, concerns, risks, bottlenecks, weaknesses, architecture, "
        "refactorings, refactoring, edge cases, style guide, naming, fragile, coupling, maintain, "
        "hard to maintain, scale, opinion, your thoughts, approve, sensible, risky, reasonable, "
        "do you think, thoughts"
    ),
    "better": (
        "improve, improved, improving, improvement, improvements, better, suggestions, suggest "
        "fixes, suggest improvements, is this good, good way, is good, right way, would you "
        "change, could be better, do better, besser machen, clean enough, good enough, okay, "
        "optimal, follow, follows"
    ),
    "unsafe": (
        "vulnerability, vulnerabilities, vulnerable, insecure, unsafe, secure, security, "
        "attacker, adversary, exploit, exploitable, injection, xss, csrf, owasp, threat model, "
        "bypass, circumvent, malicious, hacker, leak secrets"
    ),
    "fault": (
        "bug, bugs, buggy, broken, wrong, incorrect, incorrectly, flaky, intermittent, "
        "intermittently, silently, regression, memory leak, leak, leaks, leaking, stuck, mistake, "
        "mistakes, misbehaves, doesn't work, does not work, don't work, not working, isn't "
        "working, won't work, stopped working, does nothing, do wrong, did wrong, doing wrong, "
        "what's wrong, race condition, off by one, infinite loop, deadlock, unexpected, "
        "unexpectedly, corrupt, corrupted, corruption, undefined, nan, null, invalid, wrongly, "
        "misaligned, overflows, flickers, freezes, hangs, glitch, typo, lint errors, rounding"
    ),
    "amiss": (
        "instead, instead of, should be, should return, should show, should have, supposed to, "
        "expected, still, twice, duplicate, duplicates, duplicated, duplicating, double, lost, "
        "disappears, disappeared, dropping, drops, missing, not shown, not displayed, is not, are "
        "not, isn't, aren't, doesn't, does not, didn't, won't, is empty, empty, never, always "
        "returns, always, keeps, only works, only happens, even though, although, but the, but "
        "it, not updated, not update, no longer, after reloading, after changing, after clicking, "
        "after closing, after adding, after deleting, after opening, after upgrading, when "
        "clicking, when tapping, when opening, when scrolling, when editing, when switching, the "
        "user, on mobile, on ios, on android, in safari, in firefox, in chrome, cropped, "
        "truncated, overlapping, hidden, visible, displayed, remains, cleared, blank, jumps, cut "
        "off, too many, too much, end of every, seems to, shows, not in"
    ),
    "tests fail": (
        "failing test, failing tests, failed test, failed tests, test fails, tests fail, test "
        "failure, test failures, the tests pass, tests pass, flaky test, passes locally, fails in "
        "ci, in isolation, test passes, failing"
    ),
    "cause": (
        "why, root cause, the cause, cause of, likely cause, causing, what's causing, what is "
        "causing, can i fix, how to fix, do i fix, how to solve, do i solve, can i solve, how to "
        "resolve, can i resolve, fix this, solve this, resolve this, what's going on, going on, "
        "what happened, i get rid, get rid of, get past, what now, figure out, fix for, a fix, "
        "warum, was tun, pourquoi"
    ),
    "error": (
        "error, errors, fail, failed, fails, failure, failures, exception, exceptions, traceback, "
        "stack trace, stacktrace, crash, crashes, crashed, crashing, crashloopbackoff, segfault, "
        "segmentation fault, core dumped, panic, fatal, timeout, timeouts, timing out, time out, "
        "times out, timed out, connection refused, refused, permission denied, access denied, "
        "denied, not found, blue screen, fehler, erreur, stürzt, error message, error code, "
        "failure message, build failed, fails with, failed to, unable to, cannot find, can't "
        "connect, could not, cannot be, unresolved, does not match, unknown file, 500s, 502s, "
        "503s, 504s, no such file, not recognized, invalid argument, syntax error, compile error, "
        "warning, deprecated warning, unexpected token, abbruch, errno, exit code, verify failed, "
        "unhandled, rejected"
    ),
    "service": (
        "pod, pods, deployment, deployments, namespace, cluster, node, nodes, service, services, "
        "server, servers, gateway, worker, workers, container, containers, kubernetes, k8s, "
        "database, kernel, production, consumers, host, vm, load balancer, ingress, machine, "
        "daemon, backend, front end, frontend, replica, broker, queue, cache, laptop, computer, "
        "pc, printer, router, wifi"
    ),
    "trouble": (
        "unhealthy, outage, down, went down, latency, slow, slow response, incident, stop "
        "working, unreachable, not ready, can't reach, cannot reach, disappeared, alerts, "
        "lagging, happened, wrong with, issue with, issues with, had issues, problem with, "
        "problems with, logs, log, rebooted, restarting, restarts, oom, oomkilled, pending, "
        "degraded, performance issue, experiencing, what happened, high cpu, memory usage, disk "
        "full, stalled, throttled, unavailable, overloaded, bad gateway"
    ),
    "proof": (
        "prove, proof, show that, theorem, induction, lemma, irrational, rational, contradiction, "
        "valid, argument, implies, therefore, logically, logic, syllogism, true or false, "
        "statement true, statement is true"
    ),
    "sum": (
        "how many, how much, how long, how far, how old, how fast, what time, what day, how "
        "often, probability, equation, inequality, integral, derivative, polynomial, triangle, "
        "rectangle, circle, area, volume, perimeter, angle, fraction, percent, percentage, square "
        "root, prime, remainder, divisible, sequence, average speed, speed, distance, interest, "
        "per hour, per day, per mile, km, mph, kg, meters, metres, liters, litres, miles, "
        "minutes, hours, cents, dollars, dice, coin, coins, cards, solve for, in total, "
        "altogether, confidence interval, expected value, expected values, factorial, "
        "permutations, combinations, logarithm, matrix, vector, divisor, multiple, diagonals, "
        "limit, solutions, root, roots, how many ways, fit into, real solutions, modulo, sine, "
        "cosine, hypotenuse, half, third, quarter, dozen, numbers, integers, digits, sum of, "
        "product of, ratio, wie viele, combien, cuántos, shares, discount, tax, tip, costs, cost, "
        "payment, loan"
    ),
    "puzzle": (
        "riddle, puzzle, step by step, your reasoning, show your work, reasoning, deduce, "
        "brother, brothers, sister, sisters, father, mother, cousin, taller, tallest, shorter, "
        "shortest, older, oldest, younger, youngest, left over, are left, has left, gives away, "
        "gave away, twice as, times as, each of them, at least one, everyone, the same, opposite, "
        "facing, north, south, left of, right of, next to, exactly one, liar, truth, doors, "
        "knights, clues, who likes, which one, bought, sold, remaining, at most, minimum number, "
        "maximum number, travels, train, trains, meets, meet"
    ),
    "summary": (
        "summarize, summarise, summary, summaries, summarizer, tldr, tl dr, gist, condense, "
        "shorten, recap, key points, main points, main ideas, key takeaways, takeaways, "
        "highlights, an abstract, executive summary, distill, distil, synthesize, synopsis, in "
        "one sentence, one sentence, in two sentences, in three sentences, two sentences, in a "
        "nutshell, release notes, changelog, zusammenfassung, zusammen, résumé, resumen, more "
        "concise, concise summary, a headline, essentials, brief summary, overview of, shorter "
        "version, shorter text, short version, bullet points, action items, one line description, "
        "in short, keep it short, one paragraph, 100 words, digest, catch me up, up to speed, in "
        "a sentence, single sentence, key messages, key ideas, summarization, is this about, "
        "saying"
    ),
    "reading": (
        "article, articles, document, documents, paper, papers, report, thread, meeting, minutes, "
        "discussion, conversation, transcript, chapter, book, dialogue, paragraph, passage, "
        "notes, news, feedback, comments, speakers, abstract, following text, the text, this "
        "text, text below, email below, the following, the above, attached, the text below, this "
        "email, this article, this paper, speech, lecture, week, yesterday, last week, codebase, "
        "novel"
    ),
    "data word": (
        "dataset, datasets, data set, data, csv, spreadsheet, spreadsheets, table, tables, "
        "column, columns, row, rows, record, records, xlsx, excel, survey, dataframe, dataframes, "
        "sheet, lab results, readings, entries, tabelle, data file, access log, stock log, "
        "figures, json of, numbers below, attendance, statistics, metrics, kpi, ledger, invoice, "
        "invoices, report"
    ),
    "statistic": (
        "correlation, correlations, correlated, median, average, averages, standard deviation, "
        "the mean, mean of, mean and, outlier, outliers, distribution, normal distribution, "
        "normally distributed, distributed, variance, variances, trend, trends, percentile, "
        "quartile, regression, t test, z score, anova, statistically, significant, significantly, "
        "p value, histogram, scatter plot, bar chart, pie chart, line chart, heatmap, chart, "
        "charts, plot, graph, visualization, inferences, insights, year over year, month over "
        "month, churn, churned, growth, stands out, anomalies, frequency, frequencies, most "
        "frequent, per month, by month, by department, by region, each month, per department, per "
        "user"
    ),
    "superlative": (
        "highest, lowest, top, most, least, largest, smallest, biggest, best, fastest, top 5, top "
        "10, top ten, top three, most common, most active, total, sum, count, number of, "
        "percentage, share, how many, how much did, who made, who has, wie hoch, grew, worst, "
        "count them, counts"
    ),
    "business": (
        "sales, revenue, profit, profits, customers, customer, orders, spending, spend, spent, "
        "expenses, users, sign, ups, employees, products, product, stores, region, department, "
        "salary, salaries, income, payroll, price, prices, stock, stocks, countries, company, "
        "companies, umsatz, requests, quarter, transactions, patients, overspend, response times, "
        "visitors, conversions, tickets, budget, budgeted, overtime"
    ),
    "flow": (
        "workflow, workflows, flow, flows, automation, automations, automate, automatically, "
        "orchestrate, zap, dag, approval, approval step, trigger, triggers, webhook, maintenance, "
        "etl, pipeline, integration, cron job, zapier, n8n, airflow, power automate"
    ),
    "when": (
        "every day, weekdays, every morning, every monday, every tuesday, every wednesday, every "
        "thursday, every friday, every hour, every week, every night, every month, each morning, "
        "each day, each time, every time, daily, weekly, nightly, hourly, monthly, whenever, when "
        "a, when an, when someone, when new, when the, after each, on error, on failure, if it "
        "fails, jeden, recurring, upon, as soon as, remind me, for each new, any time, at 8, at "
        "9, if the"
    ),
    "tool": (
        "slack, teams, discord, telegram, whatsapp, sms, email, emails, gmail, outlook, jira, "
        "trello, asana, notion, github, calendar, sheet, sheets, google drive, dropbox, s3, "
        "bucket, bigquery, snowflake, kafka, hubspot, salesforce, channel, channels, inbox, "
        "notification, notifications, video call, phone number, flight, hotel, taxi, appointment, "
        "reservation, meeting, appointments, online meeting, groceries, bill, rent, crm, ftp, "
        "twitter, spotify, event, folder, mailing list, dm, direct message, dr, doctor"
    ),
    "then": (
        "then, after that, afterwards, finally, and then, after sending, when it's done, "
        "meanwhile, followed by, next step, once that, when done, as well, also"
    ),
    "know": (
        "is, in, are in, etymology, invented before, what is, what are, what's, what does, what "
        "were, what do, who is, who was, who wrote, who invented, when did, when was, where is, "
        "why is, why are, why do, why does, why did, how does, how do, how can, how to, how is, "
        "how are, how did, how should, difference, differences, pros and cons, should i, is it, "
        "meaning, meaning of, does it mean, definition, advantages, disadvantages, benefits, "
        "basics, introduction to, history, origin, origins, steps to, unterschied, strategy, "
        "strategies, common, factors, causes of, reasons for, legal, like i'm, eli5, kind of, "
        "concept, good for, the role of, impact, effects, effect, examples, real life, principle, "
        "ways to, tips, was ist, quelle est, cuál es"
    ),
    "passage": (
        "answer the question, answer the following, the passage, on the context, trivia question, "
        "use the text, given the context, context, question answer, question and answer, "
        "according to, from the text, passage, read the"
    ),
    "letters": (
        "poem, poems, song, songs, lyrics, story, stories, essay, letter, blog, article, speech, "
        "tweet, haiku, sonnet, limerick, quatrain, ballad, slogan, motto, tagline, joke, jokes, "
        "recipe, recipes, dialog, dialogue, monologue, novel, screenplay, quote, quotes, "
        "synonyms, backstory, scene, description, announcement, caption, toast, names, ideas, "
        "headline, proposal, agreement, contract, lesson plan, curriculum, itinerary, trip, "
        "gedicht, poème, poema, email, emails, e mail, cover letter, character, protagonist, "
        "villain, hero, meal plan, workout, routine, party, product description, bio, title, "
        "titles, quiz, invitation, testimonial, social media, newsletter, resume, cv, press "
        "release, fairy tale, persuasive, review of, film, movie, movies, concert, restaurant, "
        "book, statement, script for, plot, short story, comedy, name for, post about, policy"
    ),
    "play": (
        "act as, pretend, imagine, role play, roleplay, let's play, you are a, you are an, "
        "introduce yourself, rpg, adventure, would you say, would a, how would you, would you "
        "introduce, in the style, in the voice, as if, game, storyteller, opponent, character, my "
        "first, greet, your persona"
    ),
    "wording": (
        "grammar, grammatical, spelling, punctuation, formal, informal, friendlier, politely, "
        "polite, tone, wording, rephrase, paraphrase, proofread, translate, translation, italian, "
        "french, german, spanish, english, latin, chinese, japanese, korean, russian, sounds, "
        "emoji, emojis, sentence, sentences, paragraph, übersetze"
    ),
    "classing": (
        "clickbait, sarcastic, sarcasm, mood, emoji, emojis, classify, classification, sentiment, "
        "spam, offensive, positive, negative, neutral, on a scale, categories, category, named "
        "entities, all names, person names, extract all, toxic, label"
    ),
    "repro": (
        "steps to reproduce, reproduce, actual result, actual behavior, actual behaviour, "
        "expected result, expected behavior, expected behaviour, actual, expected, action "
        "performed, precondition, repro steps, steps"
    ),
    "first person": ("my, our"),
    "give words": ("given, following, here is, here are, given the"),
}

FILLERS = (
    "please pls plz can could would will you kindly hi hello hey i i'd want to need help me let's "
    "lets now just also first then your task job is the a an like bitte kannst mir s'il vous por "
    "favor in and so ok okay as we should must for"
)
"""Words before the verb of a sentence that opens with what is wanted."""
