// Reads what llama.cpp makes of replies: one JSON object a line on stdin, one a line on stdout.
//
// In:  {template, messages, tools, text, is_partial, parallel, bos, eos, enable_thinking}
// Out: {content, reasoning, calls: [{id, name, arguments}], prompt, preserved, stops, thinks} or
//      {error}. What is rendered gives the syntax that is parsed with, as in llama-server.

#include "chat.h"
#include "common.h"
#include "json.h"
#include "log.h"

#include <exception>
#include <iostream>
#include <string>

using json = common_json;

static json answer(const json & asked) {
    auto templates = common_chat_templates_init(nullptr, asked.value("template", ""), asked.value("bos", ""),
                                                asked.value("eos", ""));
    common_chat_templates_inputs inputs;
    inputs.messages            = common_chat_msgs_parse_oaicompat(asked.at("messages"));
    inputs.tools               = common_chat_tools_parse_oaicompat(asked.at("tools"));
    inputs.parallel_tool_calls = asked.value("parallel", true);
    inputs.reasoning_format    = COMMON_REASONING_FORMAT_DEEPSEEK;
    inputs.enable_thinking     = asked.value("enable_thinking", true);
    auto params                = common_chat_templates_apply(templates.get(), inputs);

    json out         = json::object();
    out["prompt"]    = params.prompt;
    out["preserved"] = params.preserved_tokens;
    out["stops"]     = params.additional_stops;
    out["thinks"]    = params.supports_thinking;
    out["lazy"]      = params.grammar_lazy;
    out["start"]     = params.generation_prompt;

    common_chat_parser_params syntax(params);
    syntax.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    if (!params.parser.empty()) {
        syntax.parser.load(params.parser);
    }
    try {
        auto parsed      = common_chat_parse(asked.value("text", ""), asked.value("is_partial", false), syntax);
        out["content"]   = parsed.content;
        out["reasoning"] = parsed.reasoning_content;
        out["calls"]     = json::array();
        for (const auto & call : parsed.tool_calls) {
            out["calls"].push_back({ { "id", call.id }, { "name", call.name }, { "arguments", call.arguments } });
        }
    } catch (const std::exception & error) {
        out["error"] = error.what();
    }
    return out;
}

int main() {
    common_log_set_verbosity_thold(-1);
    for (std::string line; std::getline(std::cin, line);) {
        json out = json::object();
        try {
            out = answer(json::parse(line));
        } catch (const std::exception & error) {
            out["error"] = std::string("before parsing: ") + error.what();
        }
        std::cout << out.dump_safe() << std::endl;
    }
}
