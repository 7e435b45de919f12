// Numbers, durations, times and sizes as people read them.

const two = (number) => String(number).padStart(2, "0");

/** @param {number[]} values @returns {number} */
export const sum = (values) => values.reduce((all, value) => all + value, 0);

/** @param {number} seconds @returns {string} `0.4s`, `42s`, `3m 20s`, `2h 13m`, `3d 4h` */
export function duration(seconds) {
  const s = Math.max(0, seconds);
  if (s < 0.0995) return s === 0 ? "0s" : s < 0.001 ? `${(s * 1e6).toFixed(0)}µs` : `${(s * 1000).toFixed(s < 0.00995 ? 1 : 0)}ms`;
  if (s < 9.95) return `${s.toFixed(1)}s`;
  const whole = Math.round(s);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}m ${two(whole % 60)}s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}h ${two(Math.floor((whole % 3600) / 60))}m`;
  return `${Math.floor(whole / 86400)}d ${Math.floor((whole % 86400) / 3600)}h`;
}

/** @param {number} number @returns {string} with its thousands apart */
export function grouped(number) {
  return number.toLocaleString("en-US");
}

/** @param {number} value @returns {string} a number with its thousands apart, or six digits of a fraction */
export function plainNumber(value) {
  if (Number.isInteger(value)) return Math.abs(value) < 1e15 ? grouped(value) : String(value);
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(4).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(6)));
}

/** @param {number} value @param {number} digits @returns {string} */
export const rounded = (value, digits) => plainNumber(Number(value.toPrecision(digits)));

/** @param {number} megabytes @returns {string} */
export function memorySize(megabytes) {
  if (megabytes < 999.5) return `${megabytes.toFixed(megabytes < 9.95 ? 1 : 0)} MB`;
  return `${(megabytes / 1024).toFixed(megabytes < 10188 ? 1 : 0)} GB`;
}

/** @param {number} epoch seconds @param {boolean} [withDay] @param {boolean} [withSeconds] @returns {string} local time */
export function clockTime(epoch, withDay = false, withSeconds = false) {
  const when = new Date(epoch * 1000);
  const time = `${two(when.getHours())}:${two(when.getMinutes())}${withSeconds ? `:${two(when.getSeconds())}` : ""}`;
  if (!withDay) return time;
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${time}`;
}

/** @param {number} number @param {string} noun @param {string} [many] @returns {string} `1 job`, `1,250 jobs` */
export function counted(number, noun, many = `${noun}s`) {
  return `${grouped(number)} ${number === 1 ? noun : many}`;
}

/** A step of 1, 2 or 5 times a power of ten, so that about `most` of them make `span`.
 * @param {number} span @param {number} most @returns {number} */
export function niceStep(span, most) {
  const raw = span / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const rest = raw / power;
  return (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10) * power;
}
