"use strict";
// A terminal of 80 by 24 for a guest's serial line: enough of ECMA-48 for a shell, a pager and an editor.
(() => {
  const wide = 80, high = 24, kept = 2000;
  const screen = document.getElementById("screen"), state = document.getElementById("state");
  let lines = [[]], top = 0, row = 0, col = 0, saved = [0, 0], region = [0, high - 1];
  let pending = "", drawn = false;

  const line = (r) => { while (lines.length <= top + r) lines.push([]); return lines[top + r]; };
  const clip = () => { row = Math.max(0, Math.min(high - 1, row)); col = Math.max(0, Math.min(wide - 1, col)); };

  const feed = () => {
    if (row !== region[1]) { row = Math.min(high - 1, row + 1); return; }
    if (region[0] === 0 && region[1] === high - 1) {
      top++; line(high - 1);
      if (top > kept) { lines.splice(0, top - kept); top = kept; }
      return;
    }
    line(high - 1);
    lines.splice(top + region[0], 1); lines.splice(top + region[1], 0, []);
  };

  const put = (ch) => {
    if (col >= wide) { col = 0; feed(); }
    const l = line(row);
    while (l.length < col) l.push(" ");
    l[col++] = ch;
  };

  const erase = (l, from, to) => { for (let i = from; i < to && i < l.length; i++) l[i] = " "; };

  const control = (args, last) => {
    const n = (i, or) => args[i] > 0 ? args[i] : or;
    switch (last) {
      case "A": row -= n(0, 1); break;
      case "B": row += n(0, 1); break;
      case "C": col += n(0, 1); break;
      case "D": col -= n(0, 1); break;
      case "E": row += n(0, 1); col = 0; break;
      case "F": row -= n(0, 1); col = 0; break;
      case "G": col = n(0, 1) - 1; break;
      case "d": row = n(0, 1) - 1; break;
      case "H": case "f": row = n(0, 1) - 1; col = n(1, 1) - 1; break;
      case "J":
        if (args[0] >= 2) { for (let r = 0; r < high; r++) line(r).length = 0; break; }
        if (args[0] === 1) { for (let r = 0; r < row; r++) line(r).length = 0; erase(line(row), 0, col + 1); break; }
        line(row).length = Math.min(line(row).length, col);
        for (let r = row + 1; r < high; r++) line(r).length = 0;
        break;
      case "K":
        if (args[0] === 2) line(row).length = 0;
        else if (args[0] === 1) erase(line(row), 0, col + 1);
        else line(row).length = Math.min(line(row).length, col);
        break;
      case "L": line(high - 1); for (let i = n(0, 1); i > 0; i--) { lines.splice(top + region[1], 1); lines.splice(top + row, 0, []); } break;
      case "M": line(high - 1); for (let i = n(0, 1); i > 0; i--) { lines.splice(top + row, 1); lines.splice(top + region[1], 0, []); } break;
      case "P": line(row).splice(col, n(0, 1)); break;
      case "@": for (let i = n(0, 1); i > 0; i--) line(row).splice(col, 0, " "); break;
      case "X": erase(line(row), col, col + n(0, 1)); break;
      case "r": region = [n(0, 1) - 1, n(1, high) - 1]; row = col = 0; break;
      case "s": saved = [row, col]; break;
      case "u": [row, col] = saved; break;
      case "n": if (args[0] === 6) send("\x1b[" + (row + 1) + ";" + (col + 1) + "R"); break;
    }
    clip();
  };

  const escapes = /^\x1b(?:\[([0-9;?]*)([@-~])|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-B]|([78DEM=>c]))/;
  const take = (text) => {
    pending += text;
    while (pending) {
      const ch = pending[0];
      if (ch === "\x1b") {
        const m = escapes.exec(pending);
        if (!m) {
          if (pending.length < 64) return; // the rest is on its way
          pending = pending.slice(1); continue;
        }
        pending = pending.slice(m[0].length);
        if (m[2] && !m[1].startsWith("?")) control(m[1].split(";").map(Number), m[2]);
        else if (m[3] === "7") saved = [row, col];
        else if (m[3] === "8") [row, col] = saved;
        else if (m[3] === "M") { if (row > 0) row--; else { lines.splice(top, 0, []); lines.splice(top + high, 1); } }
        continue;
      }
      pending = pending.slice(1);
      switch (ch) {
        case "\r": col = 0; break;
        case "\n": case "\v": case "\f": feed(); break;
        case "\b": col = Math.max(0, Math.min(col, wide) - 1); break;
        case "\t": col = Math.min(wide - 1, (col & ~7) + 8); break;
        default: if (ch >= " " && ch !== "\x7f") put(ch);
      }
    }
  };

  const draw = () => {
    drawn = false;
    const end = window.innerHeight + window.scrollY >= document.body.scrollHeight - 40;
    const l = line(row), at = Math.min(col, wide - 1);
    while (l.length <= at) l.push(" ");
    const text = (ls) => ls.map((x) => x.join("")).join("\n");
    const cursor = document.createElement("span");
    cursor.className = "cursor"; cursor.textContent = l[at];
    const before = text(lines.slice(0, top + row).concat([l.slice(0, at)]));
    const after = text([l.slice(at + 1)].concat(lines.slice(top + row + 1)));
    screen.replaceChildren(before, cursor, after);
    if (end) window.scrollTo(0, document.body.scrollHeight);
  };
  const redraw = () => { if (!drawn) { drawn = true; requestAnimationFrame(draw); } };

  const keys = { Enter: "\r", Backspace: "\x7f", Tab: "\t", Escape: "\x1b", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C",
    ArrowLeft: "\x1b[D", Home: "\x1b[H", End: "\x1b[F", PageUp: "\x1b[5~", PageDown: "\x1b[6~", Delete: "\x1b[3~", Insert: "\x1b[2~" };
  const encoder = new TextEncoder();
  let ws = null;
  const send = (text) => { if (ws && ws.readyState === WebSocket.OPEN) ws.send(encoder.encode(text)); };

  const connect = () => {
    const query = location.search;
    ws = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/console/serial" + query, ["binary"]);
    ws.binaryType = "arraybuffer";
    const decoder = new TextDecoder();
    let opened = false;
    ws.onopen = () => { opened = true; state.textContent = "connected; press Enter if nothing shows"; screen.focus(); };
    ws.onmessage = (e) => { take(decoder.decode(e.data, { stream: true })); redraw(); };
    ws.onclose = (e) => {
      state.textContent = opened ? "closed" + (e.reason ? ": " + e.reason : "") + "; reload to connect again"
        : "refused: the token is invalid or has expired, or the server does not run";
    };
  };

  document.addEventListener("keydown", (e) => {
    let text = keys[e.key];
    if (e.ctrlKey && !e.altKey && !e.metaKey && e.key.length === 1) {
      const c = e.key.toUpperCase().charCodeAt(0);
      if (c === 86 || (c === 67 && String(getSelection()))) return; // paste, and copy of what is marked
      if (c >= 64 && c < 96) text = String.fromCharCode(c - 64);
    } else if (!e.ctrlKey && !e.metaKey && e.key.length === 1) text = (e.altKey ? "\x1b" : "") + e.key;
    if (text === undefined) return;
    e.preventDefault();
    send(text);
  });
  document.addEventListener("paste", (e) => { e.preventDefault(); send(e.clipboardData.getData("text").replace(/\r?\n/g, "\r")); });
  connect();
  draw();
})();
