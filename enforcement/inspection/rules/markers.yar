// Injection by the marks of a conversation: what a model was taught to take for the speech of its operator.
// Looked at is the text as received: the marks are made of signs.

// No match is without one of these near it: only there the rules look.
rule _near_markers { meta: view = "text" near = "(?i)<\\||\\[/?(?:inst|sys|avail|tool_)|<</?sys|of_turn>|</?(?:system|assistant|tool_|function_|user_|admin|hidden|secret|important|instruction|human_|ai_)|#[\\s\\x0b]{0,3}(?:system|new|hidden|updated|override|admin)[\\s\\x0b]|\\n[\\s\\x0b]{0,8}\\n[\\s\\x0b]{0,4}(?:human|system|assistant)[\\s\\x0b]{0,2}:|[=*#-][\\s\\x0b]{0,3}(?:begin|start|end)[\\s\\x0b]|role\"[\\s\\x0b]{0,3}:[\\s\\x0b]{0,3}\"(?:system|developer)|<!--|\\[//\\]:|display[\\s\\x0b]{0,3}:|visibility[\\s\\x0b]{0,3}:|font-size|opacity|color[\\s\\x0b]{0,3}:" condition: false }

rule chat_template { meta: kind = "injection" strings:
    $a = /<\|(im_start|im_end|system|user|assistant|endoftext|start_header_id|end_header_id|eot_id|begin_of_text|endofprompt|channel|message)\|>/ nocase
    $b = /\[\/?(INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS)\]/
    $c = /<<\/?SYS>>/
    $d = /<(start|end)_of_turn>/
  condition: any of them }
rule conversation_tag { meta: kind = "injection" strings:
    $a = /<\/?(system|system[_-]?(prompt|message|instructions?|override|reminder|note)|assistant|tool_(result|response|output)s?|function_(results?|calls?)|user_(query|message)|admin|hidden[_-]?(instructions?)?|secret_instructions?|important[_-]?(instructions?|note)?|instructions?|human_turn|ai_instructions?)\s{0,3}>/ nocase
  condition: $a }
rule turn_marker { meta: kind = "injection" strings:
    $a = /(^|\n)\s{0,4}#{1,6}\s{0,3}(system|new|hidden|updated|override|admin)\s{1,3}(prompt|instructions?|message|directive)s?\b/ nocase
    $b = /\n\s{0,8}\n\s{0,4}(human|system|assistant)\s{0,2}:\s/ nocase
    $c = /[=*#-]{3,20}\s{0,3}(begin|start|end)\s{1,3}(of\s{1,3})?(system|admin|hidden|new|secret|internal|trusted)\s{1,3}(prompt|instructions?|message|context)/ nocase
    $d = /"role"\s{0,3}:\s{0,3}"(system|developer)"\s{0,3},\s{0,3}"content"/ nocase
  condition: any of them }
rule hidden_comment { meta: kind = "injection" strings:
    $a = /<!--[^>]{0,300}\b(assistant|ai|llm|model|agent|chatbot|gpt|claude|gemini|copilot|ignore|instructions?|system prompt)\b[^>]{0,100}/ nocase
    $b = /\[\/\/\]:\s{0,3}#\s{0,3}[("'][^\n]{0,300}\b(assistant|ai|llm|model|agent|ignore|instructions?)\b/ nocase
    $c = /<[a-z]{1,10}\s[^>]{0,200}(display\s{0,3}:\s{0,3}none|visibility\s{0,3}:\s{0,3}hidden|font-size\s{0,3}:\s{0,3}[01](px|pt|em)?\s{0,3}[;"']|opacity\s{0,3}:\s{0,3}0[;"'\s]|color\s{0,3}:\s{0,3}(white|#fff(fff)?|transparent))[^>]{0,200}>[^<]{0,300}\b(assistant|ai|llm|model|agent|ignore|instructions?|you must)\b/ nocase
  condition: any of them }
