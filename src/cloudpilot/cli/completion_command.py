"""`pilot completion`: prints the completion script of a shell, made from the options that there are."""

from __future__ import annotations

from cloudpilot.cli import COMMANDS
from cloudpilot.cli.parser import Parser

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
# bash completion of pilot: eval "$(pilot completion bash)"
_pilot() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}}
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W "{commands} --help --version" -- "$word"))
        return
    fi
    case $command in
        run) [[ $word == -* ]] && COMPREPLY=($(compgen -W "{run_options}" -- "$word")) || COMPREPLY=($(compgen -c -f -- "$word")) ;;
        exec|kill|stats) COMPREPLY=($(compgen -W "$(pilot ps --quiet 2>/dev/null)" -- "$word")) ;;
        completion) COMPREPLY=($(compgen -W "{shells}" -- "$word")) ;;
        *) COMPREPLY=($(compgen -W "--json --help" -- "$word")) ;;
    esac
}}
complete -F _pilot pilot
"""

_ZSH = """\
#compdef pilot
# zsh completion of pilot: eval "$(pilot completion zsh)"
_pilot() {{
    if (( CURRENT == 2 )); then
        compadd -- {commands} --help --version
        return
    fi
    case $words[2] in
        run) [[ $PREFIX == -* ]] && compadd -- {run_options} || {{ _command_names; _files }} ;;
        exec|kill|stats) compadd -- $(pilot ps --quiet 2>/dev/null) ;;
        completion) compadd -- {shells} ;;
        *) compadd -- --json --help ;;
    esac
}}
compdef _pilot pilot
"""

_FISH = """\
# fish completion of pilot: pilot completion fish | source
complete -c pilot -f -n __fish_use_subcommand -a "{commands}"
complete -c pilot -f -n "__fish_seen_subcommand_from exec kill stats" -a "(pilot ps --quiet 2>/dev/null)"
complete -c pilot -f -n "__fish_seen_subcommand_from completion" -a "{shells}"
{fish_options}"""


def main(arguments: list[str]) -> int:
    """Runs `pilot completion`."""
    parser = Parser("completion", "Print the completion script of a shell.", "bash|zsh|fish")
    parser.add_argument("shell", choices=SHELLS)
    shell = parser.parse_args(arguments).shell
    from cloudpilot.cli import run_command

    options = [text for text in run_command.parser()._option_string_actions if text.startswith("--")]
    texts = {
        "commands": " ".join(COMMANDS),
        "run_options": " ".join(options),
        "shells": " ".join(SHELLS),
        "fish_options": "".join(f'complete -c pilot -n "__fish_seen_subcommand_from run" -l {text[2:]}\n' for text in options),
    }
    print({"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell].format(**texts), end="")
    return 0
