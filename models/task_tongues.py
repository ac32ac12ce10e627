"""More words for the groups of ``task_words.py``: in other languages, and of newer groups.

As there, each value lists words and phrases of up to three words between commas. ``SIGNS`` are for
scripts that put no blanks between words: they count wherever they stand.
"""

from __future__ import annotations

OPENERS: dict[str, str] = {
    "make": (
        "schreibe mir, schreib mir, bau, baue, entwirf, formuliere, verfasse, mach, mache, gib "
        "mir, erzeuge, rédige, fais, donne, donne moi, fais moi, escríbeme, hazme, redacta, dame, "
        "scrivi, scrivimi, fammi, dammi, componi, escreva, escreve, faça, faz, cria, gera, dá, "
        "napisz, stwórz, zrób, wygeneruj, podaj, schrijf, maak, geef, yaz, oluştur, hazırla, "
        "üret, напиши, создай, сделай, придумай, сгенерируй, составь, дай"
    ),
    "change": (
        "füge, ergänze, ändere, ersetze, entferne, wandle, stelle um, ajoute, remplace, "
        "convertis, añade, agrega, cambia, convierte, reemplaza, quita, aggiungi, converti, "
        "sostituisci, togli, adicione, adiciona, converta, troque, dodaj, zamień, usuń, przerób, "
        "ekle, değiştir, dönüştür, kaldır, добавь, замени, убери, перепиши на, voeg"
    ),
    "look": (
        "finde, zeige, zeig, liste, zähle, suche, trouve, montre, cherche, compte, encuentra, "
        "busca, muestra, cuenta, trova, cerca, mostra, encontre, mostre, conte, znajdź, pokaż, "
        "policz, bul, göster, say, найди, покажи, посчитай, zoek, toon"
    ),
    "ask": (
        "was, wieso, weshalb, woher, wohin, wozu, wieviel, kann, ist, sind, hat, gibt es, darf, "
        "quelles, qui, que, où, quand, combien, est ce que, quien, quién, dónde, cuánto, puedo, "
        "es, hay, che, chi, come, quando, perché, dove, quanto, quale, posso, è, cosa, o que, "
        "qual, quem, como, onde, por que, porque, co, kto, gdzie, kiedy, dlaczego, jak, jaki, "
        "jaka, jakie, czy, ile, wat, hoe, waarom, wanneer, welke, mag, ne, nedir, kim, nerede, "
        "neden, niçin, nasıl, hangi, что, кто, где, когда, почему, зачем, как, какой, какая, "
        "какие, сколько, можно, any, which one, should, shall, would, whats, whos, hows, got"
    ),
    "explain": (
        "erklär, erkläre mir, beschreibe, vergleiche, décris, compare, explique moi, explícame, "
        "describe, spiega, spiegami, descrivi, explica, explique, descreva, wyjaśnij, opisz, leg "
        "uit, açıkla, anlat, объясни, расскажи, опиши, сравни"
    ),
    "reckon": (
        "rechne, berechne, löse, beweise, ermittle, bestimme, wie viel, wie viele, calculez, "
        "résous, combien, démontre, calcula, resuelve, demuestra, cuánto, cuántos, cuántas, "
        "calcola, risolvi, dimostra, quanti, quante, calcule, resolva, prove, quantos, quantas, "
        "oblicz, rozwiąż, udowodnij, ile, bereken, los op, hesapla, çöz, kaç, вычисли, реши, "
        "докажи, рассчитай, сколько"
    ),
    "judge": (
        "bewerte, beurteile, prüfe, prüf, begutachte, schau, schau dir, évalue, relis, juge, "
        "vérifie, critique, revisa, evalúa, valora, critica, rivedi, valuta, controlla, guarda, "
        "avalie, revise, analise, oceń, sprawdź, przejrzyj, beoordeel, bekijk, değerlendir, "
        "incele, оцени, проверь, посмотри, grade, roast, opinions, verdict, any weaknesses, "
        "anything, judge, be brutally, take a critical, read through, second pair"
    ),
    "mend": (
        "korrigiere, repariere, behebe, finde den fehler, corrige, répare, débogue, arregla, "
        "depura, correggi, ripara, corrija, conserte, arrume, napraw, popraw, znajdź błąd, "
        "repareer, düzelt, исправь, почини, найди ошибку, set right, put right, unbreak"
    ),
    "shorten": (
        "fasse, fass, kürze, résume, synthétise, raccourcis, resume, resumir, sintetiza, acorta, "
        "condensa, riassumi, sintetizza, accorcia, resuma, resumo, sintetize, streść, podsumuj, "
        "skróć, vat, kort, özetle, kısalt, кратко, сократи, перескажи, резюмируй, digest, précis, "
        "nutshell, gist, cut this, cut, too long, catch me, headline, boil down"
    ),
    "measure": (
        "werte, werte aus, vergleiche, stelle dar, analyse, trace, analiza, grafica, compara, "
        "analizza, confronta, traccia, analise, compare, przeanalizuj, porównaj, analiz et, "
        "karşılaştır, проанализируй, сравни, построй, read off, eyeball"
    ),
    "deed": (
        "sende, schicke, benachrichtige, erinnere, buche, bestelle, lade, speichere, envoie, "
        "réserve, rappelle, préviens, enregistre, envía, avisa, reserva, recuérdame, guarda, "
        "invia, prenota, avvisa, salva, ricordami, envie, reserve, avise, lembre, wyślij, "
        "zarezerwuj, powiadom, przypomnij, zapisz, stuur, gönder, hatırlat, kaydet, ayarla, "
        "отправь, напомни, забронируй, сохрани, закажи, grab, drop, put, ping, print, flag, file, "
        "check, switch, charge, mark, link, renew"
    ),
    "pose": (
        "du bist, stell dir vor, spiel, spiele, tu es, imagine, joue, eres, imagina, actúa, sei, "
        "immagina, fai finta, você é, finja, imagine, jesteś, wyobraź, udawaj, je bent, sen bir, "
        "ты, представь, притворись"
    ),
    "rework": (
        "übersetze, übersetz, formuliere um, mach aus, traduis, reformule, corrige, traduce, "
        "reformula, traduci, riformula, traduza, traduz, reescreva, przetłumacz, przeredaguj, "
        "vertaal, çevir, переведи, перепиши, перефразируй, how do i say, how do you say"
    ),
    "sort": (
        "ordne, sortiere, klassifiziere, classe, catégorise, clasifica, ordena, classifica, "
        "classifique, posortuj, sklasyfikuj, sınıflandır, классифицируй, распредели, for each, "
        "which of these, which of the"
    ),
    "suggest": (
        "schlage, schlag, nenne, nenn, empfiehl, propose, suggère, conseille, sugiere, propón, "
        "recomienda, proponi, suggerisci, consigliami, sugira, sugere, zaproponuj, öner, "
        "предложи, посоветуй, offer, dream up, think up, hit me, brainstorm"
    ),
    "greet": (
        "guten tag, moin, salut, coucou, buenos días, buenas, gracias, ciao, grazie, olá, oi, "
        "obrigado, obrigada, cześć, dzięki, merhaba, teşekkürler, selam, привет, спасибо, "
        "здравствуйте, how are, how's it, what's up"
    ),
}

GROUPS: dict[str, str] = {
    "language": (
        "g code, gcode, esphome, lilypond, latex, tikz, openscad, autohotkey, applescript, "
        "ggplot, ggplot2, dax, power query, groovy, xpath, mermaid, arduino ide, micropython, "
        "godot, gdscript, imagemagick, pandoc, rsync, robocopy, vimscript, elisp, racket, scheme, "
        "verilog, vhdl, wasm, htmx, alpine.js, scss, tex, bibtex, gnuplot, crontab, systemd, "
        "helm, jenkinsfile, github actions, gitlab ci, logstash, promql, nix, bazel, cmake"
    ),
    "query word": (
        "excel formel, formel, formule, fórmula, formuła, formül, формула, conditional "
        "formatting, calculated field, filter expression, measure, alert rule, countif, sumif, "
        "sumifs, xlookup, markup, json schema, requête, consulta, abfrage, zapytanie, sorgu, "
        "запрос, comando, commande, befehl, polecenie, komut, команду, команда, terminal command, "
        "openapi, protobuf, manifest, systemd unit, one liner, oneliner"
    ),
    "code word": (
        "code, kod, código, codice, кода, код, fonction, funzione, função, funkcja, funkcję, "
        "fonksiyon, функцию, функция, programma, programa, programme, program, программу, "
        "skrypt, скрипт, betik, makro, macro, klasse, classe, clase, klasa, sınıf, класс, "
        "pagination, endpoint, user story, acceptance criteria, signature, dry run"
    ),
    "verdict": (
        "opinion, opinions, verdict, grade, roast, brutally, honest, harsh, strict, second pair, "
        "pair of eyes, fresh eyes, would you merge, merge this, let this through, before we, "
        "before i, before it, goes live, go live, sign off, fit for, fit to, standards, good "
        "practice, wince, holes, red flags, smells, nitpick, nitpicks, lgtm, looks ok, look ok, "
        "looks fine, ok to, safe to, shaky, solid, hand over, out of 10, assess, assessment, "
        "judge, critical look, falls short, weak spots, pitfalls, would a senior, production "
        "ready, clean, cleaner, well written, keep or, ready for, bewerte, bewerten, was hältst, "
        "was haltet, deine meinung, beurteilen, sauber, avis, relecture, bien écrit, qu'en "
        "penses, avaliar, avalie, valutare, giudizio, parere, scritta bene, opinión, qué te "
        "parece, revisar, mejorarías, ocenić, ocena, değerlendir, görüş, отзыв, оцени, ревью, "
        "мнение, wat vind je, beoordeel"
    ),
    "misbehaves": (
        "comes out, goes straight, set right, the matter, off with, something's off, only half, "
        "too few, by itself, on its own, drives me mad, nothing happens, no message, no error, no "
        "errors, no warning, no warnings, without any, without error, for no reason, random, "
        "randomly, sometimes, every time, keeps, went wrong, my mistake, the mistake, is faulty, "
        "faulty, strange, weird, odd, puzzled, by hand, used to, since the, since i, anymore, any "
        "more, whatever i, no matter, except, swallowed, doubled, reversed, wrong order, flips, "
        "goes out, goes off, never stops, stays, sleeps, wo ist der, wo liegt der, fehler, "
        "falsch, was läuft, funktioniert nicht, geht nicht, statt, trotzdem, bleibt, où est, ne "
        "fonctionne, ne marche, marche pas, fonctionne pas, mauvais, au lieu, plus rien, dónde "
        "está, no funciona, en vez de, en lugar, mal, siempre, dove ho, dove sbaglio, sbagliato, "
        "non funziona, invece, sempre, onde está, não funciona, em vez de, errado, nie działa, "
        "zamiast, źle, błąd, çalışmıyor, yanlış, yerine, не работает, вместо, неправильно, "
        "ошибка, почему то, waar zit, werkt niet, werkt pas"
    ),
    "error": (
        "fehlermeldung, meldung, startet nicht, abgestürzt, message d'erreur, plante, erreur, "
        "mensaje de error, error al, errore, messaggio di errore, si blocca, mensagem de erro, "
        "erro, komunikat, błędu, wyskakuje, hata, hatası, hatasını, ошибку, сообщение об, "
        "вылетает, foutmelding, it says, says, shows, display shows, blinks, blinking, beeps, "
        "flashing, light is, error light, refuses, gives up, dies, dies with, won't start, won't "
        "boot, does not start, spits out, throws, complains, stops with, exits with"
    ),
    "cause": (
        "was bedeutet, was heißt, que faire, qué significa, qué hago, cosa significa, cosa devo, "
        "o que significa, co oznacza, co robić, ne demek, ne yapmalıyım, что означает, что "
        "делать, how do i, get it going, what does that, what does this, what can i, wat betekent"
    ),
    "summary": (
        "nutshell, précis, cheat sheet, main messages, too long, didn't read, boil down, bare "
        "bones, a third of, half the length, a few lines, few lines, two lines, one line, three "
        "lines, five lines, 3 bullets, three bullets, five bullets, bullets, headline only, "
        "status report, take from, in a tweet, one tweet, long story short, what did they, what "
        "was decided, decisions, missed, short form, in brief, brief, briefly, in 2 sentences, in "
        "1 sentence, in 3 sentences, in einem satz, zusammenfassen, kurzfassung, stichpunkte, "
        "stichworten, kernaussagen, in zwei sätzen, en une phrase, en bref, en deux, l'essentiel, "
        "synthèse, points clés, en una frase, en resumen, puntos clave, lo esencial, riassunto, "
        "in breve, in sintesi, punti chiave, in due righe, resumo, em poucas, pontos principais, "
        "w jednym zdaniu, streszczenie, streścić, w skrócie, podsumowanie, samenvatten, "
        "samenvatting, in het kort, özet, özeti, kısaca, özetler, кратко, вкратце, краткое, "
        "резюме, суть, главное, в двух"
    ),
    "attached": (
        "attached, attachment, uploaded, enclosed, pasted, in the chat, in the folder, the file, "
        "the export, export from, exported, im anhang, angehängt, hochgeladen, pièce jointe, "
        "ci joint, adjunto, adjunta, allegato, em anexo, w załączniku, ekte, ekteki, в файле, "
        "во вложении, bijlage, the attached, on the share"
    ),
    "given text": (
        "below, following, above, here's the, here is the, here are, this text, folgenden, "
        "folgende, diesen, cette, ce texte, suivant, suivante, siguiente, este texto, seguente, "
        "questo testo, seguinte, este texto, poniższy, poniższą, aşağıdaki, следующий, следующий "
        "текст, onderstaande"
    ),
    "flow": (
        "automatisch, automatisiere, automatisieren, automatiquement, automatiser, "
        "automáticamente, automatizar, automatizo, automaticamente, automatizzare, automatycznie, "
        "otomatik, автоматически, автоматизируй, routine, home assistant, node red, ifttt, make "
        "com, set it up, put together, set up, hands off, unattended, end to end, chain, steps in"
    ),
    "when": (
        "jeden morgen, jeden tag, jeden montag, jede woche, sobald, immer wenn, täglich, "
        "chaque, chaque matin, chaque jour, dès que, tous les, toutes les, à chaque, cada, cada "
        "vez, cada día, cada lunes, todos los, cuando un, ogni, ogni volta, ogni mattina, tutti i, "
        "todo dia, toda vez, sempre que, każdego, codziennie, co tydzień, za każdym, her gün, her "
        "sabah, her hafta, olduğunda, gelince, каждый, каждое, каждую, каждый день, elke, first "
        "monday, on the first, last day, at midnight, at noon, by seven, in the evening, as soon, "
        "once a, when somebody, when my, comes in, arrives"
    ),
    "statistic": (
        "durchschnitt, mittelwert, moyenne, médiane, promedio, mediana, media, média, średnia, "
        "ortalama, ortalaması, среднее, медиана, trendy, tendance, tendencia, tendenza, ausreißer, "
        "a b test, conversion rate, response rate, share of, per cent, peak, peaks, dip, spike, "
        "getting better, getting worse, stand out, pattern, compare the, sample size, p 0, se, "
        "confidence, fitter, development over, weekday, weekdays, by site, by month, by year"
    ),
    "data word": (
        "daten, auswertung, liste, données, tableau, colonne, datos, tabla, columna, dati, "
        "tabella, colonna, dados, tabela, coluna, dane, kolumna, veri, veriler, tablo, sütun, "
        "данные, таблица, таблице, столбец, readings, measured, measurements, log of, survey "
        "results, results, export, parquet, sqlite, counts, check ins, bank statement, statement"
    ),
    "superlative": (
        "am meisten, am höchsten, höchste, niedrigste, größte, kleinste, le plus, la plus, el "
        "más, la más, il più, la più, o mais, a mais, najwięcej, największy, najwyższy, en çok, "
        "en yüksek, en düşük, больше всего, самый, самая, самое, which month, which day, which "
        "week, which region, which of my, which product, which store, which hour"
    ),
    "letters": (
        "brief, geschichte, lied, gedicht, rede, einladung, spruch, lettre, histoire, chanson, "
        "discours, carta, cuento, historia, canción, discurso, lettera, storia, canzone, poesia, "
        "discorso, carta, conto, história, wiersz, list, opowiadanie, życzenia, şiir, hikaye, "
        "mektup, стих, стихотворение, рассказ, письмо, сказку, поздравление, gedichtje, slogans, "
        "themes, costume, theme, couplet, verses, rhyming, rhyme, eulogy, wedding, birthday, "
        "greeting card, pun, puns, nickname, nicknames, name ideas, endings, opening line, advert"
    ),
    "wording": (
        "translate into, auf englisch, auf deutsch, ins englische, ins deutsche, en anglais, en "
        "français, en inglés, al inglés, al español, in inglese, in italiano, em inglês, para o, "
        "po angielsku, na angielski, ingilizceye, türkçeye, на английский, turkish, arabic, "
        "portuguese, polish, dutch, swedish, greek, less stiff, warmer, more formal, livelier"
    ),
    "classing": (
        "belongs to, belong to, for each message, each ticket, one of, which team, which of these, "
        "labels, feat fix, happy or, angry or, tags, yes or no, true or, sort into, into three, "
        "into two, team it, urgent or"
    ),
    "choices": (
        "multiple choice, reply with one, one letter, with the letter, correct option, the correct "
        "answer, choose the, which of the, mmlu, answer choices, options, pick the"
    ),
    "calm": (
        "just want to, want to understand, curious, only would like, would only like, i know, in "
        "plain english, in plain words, plain words, what is the idea, why do people, not stuck, "
        "in general, is it normal, what's the point, does it matter, is it true, heard, generally, "
        "usually, what does it, what's a, what is a, allowed to, can i still, may i, do i have, do "
        "i need, should i, any difference, the diff"
    ),
    "reckoning": (
        "at most, at least, how many, how much, afford, break even, cheaper, cover, enough, left, "
        "each, apart, ahead, days ago, weeks ago, days from, what weekday, which day, fits, fit, "
        "can i fit, invest, litre, euro, euros, alarm, arrive, arrives, leaves, between them, in "
        "what order, who is, who sits, if today, odds, chance, höchstens, mindestens, insgesamt, "
        "reicht, pro person, au plus, au moins, en tout, como máximo, en total, al massimo, in "
        "totale, no máximo, no total, co najmniej, łącznie, razem, toplam, en fazla, всего, "
        "осталось, вероятность"
    ),
}

SIGNS: dict[str, str] = {
    "opens: shorten": "要約, まとめて, 要点, 总结, 總結, 摘要, 概括, 요약, 简述",
    "summary": "要約, まとめて, 要点, 总结, 總結, 摘要, 概括, 一文に, 一句话, 요약, 핵심",
    "opens: make": "書いて, 作って, 作成, 写一, 写个, 写段, 编写, 生成, 创建, 써 줘, 작성, 만들어",
    "opens: mend": "直して, 修正して, 修复, 修好, 改错, 고쳐",
    "opens: judge": "レビュー, 評価して, 审查, 評価, 评审, 评价, 검토, 리뷰",
    "verdict": "レビュー, 評価して, 审查, 评审, 点评, 검토, 리뷰",
    "opens: explain": "説明して, 教えて, 解释, 介绍, 说明一下, 설명",
    "opens: ask": "何ですか, なぜ, どうして, どこ, いつ, 什么, 怎么, 哪里, 哪个, 무엇, 왜, 어떻게",
    "opens: rework": "翻訳, 訳して, 翻译, 译成, 润色, 改写, 번역",
    "opens: reckon": "計算, いくつ, 何個, 何人, 计算, 多少, 几个, 求, 证明, 계산, 몇",
    "code word": "コード, 関数, スクリプト, プログラム, 代码, 函数, 脚本, 程序, 코드, 함수",
    "query word": "正規表現, 正则, 公式, 数式, コマンド, 命令, 정규식",
    "error": "エラー, 例外, 报错, 错误, 崩溃, 异常, 오류, 에러",
    "misbehaves": "おかしい, 動かない, 不具合, バグ, 不对, 不工作, 没反应, 안 돼, 버그",
    "data word": "データ, 表, 数据, 表格, 데이터, 売上",
    "statistic": "平均, 傾向, 趋势, 比例, 相関, 평균, 추세",
    "when": "毎朝, 毎日, 毎週, 每天, 每周, 每次, 的时候自动, 매일, 매주",
    "flow": "自動, 自动, 자동, ワークフロー, 工作流",
    "letters": "詩, 手紙, 物語, 诗, 故事, 信, 文案, 시를, 편지, 이야기",
}
