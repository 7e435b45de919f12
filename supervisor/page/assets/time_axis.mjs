// One axis for all runs: time without the stretches in which nobody ran anything.

import { clockTime, duration, niceStep } from "./words.mjs";

/** Seconds on the axis are those of the pieces, one after the other, with a small break between two. */
export class TimeAxis {
  /** @param {number[][]} pieces start and end of each @param {number} origin seconds since the epoch */
  constructor(pieces, origin) {
    this.origin = origin;
    this.pieces = [];
    const total = pieces.reduce((sum, [start, end]) => sum + Math.max(0.001, end - start), 0);
    this.gap = pieces.length > 1 ? Math.max(total * 0.02, 0.001) : 0;
    let at = 0;
    for (const [start, end] of pieces) {
      const length = Math.max(0.001, end - start);
      this.pieces.push({ start, end: start + length, at });
      at += length + this.gap;
    }
    this.length = Math.max(0.001, at - this.gap);
  }

  /** @param {number} time seconds since the origin @returns {number} */
  place(time) {
    let found = this.pieces[0];
    if (!found) return 0;
    for (const piece of this.pieces) {
      // In a break: the piece that is nearer. The bins of a run may begin a little before it does.
      if (piece.start <= time || piece.start - time < time - found.end) found = piece;
      else break;
    }
    return found.at + Math.min(Math.max(0, time - found.start), found.end - found.start);
  }

  /** @param {number} place @returns {number} seconds since the origin */
  time(place) {
    let found = this.pieces[0];
    if (!found) return 0;
    for (const piece of this.pieces) if (piece.at <= place) found = piece;
    return Math.min(found.start + place - found.at, found.end);
  }

  /** @returns {{from: number, to: number, seconds: number}[]} the breaks, and how long nothing ran */
  breaks() {
    return this.pieces.slice(1).map((piece, index) => {
      const before = this.pieces[index];
      return { from: piece.at - this.gap, to: piece.at, seconds: piece.start - before.end };
    });
  }

  /** @param {number} time @param {boolean} [withSeconds] @returns {string} local time; the day if there are several */
  words(time, withSeconds = false) {
    return clockTime(this.origin + time, this.severalDays(), withSeconds);
  }

  /** @param {number} time @param {boolean} [withSeconds] @returns {string} the same without the year */
  shortWords(time, withSeconds = false) {
    const words = this.words(time, withSeconds);
    return this.severalDays() ? words.slice(5) : words;
  }

  /** @returns {boolean} */
  severalDays() {
    const last = this.pieces.at(-1);
    if (!last) return false;
    return new Date(this.origin * 1000).toDateString() !== new Date((this.origin + last.end) * 1000).toDateString();
  }

  /** @param {number} from @param {number} to places @param {number} most @returns {{place: number, label: string}[]} */
  ticks(from, to, most) {
    const span = to - from;
    const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
    const step = steps.find((one) => span / one <= most) || Math.max(86400, niceStep(span, most));
    const found = [];
    for (const piece of this.pieces) {
      const shift = new Date((this.origin + piece.start) * 1000).getTimezoneOffset() * 60;
      const first = Math.ceil((this.origin + piece.start - shift) / step) * step + shift - this.origin;
      for (let time = first; time <= piece.end && found.length < 200; time += step) {
        const place = piece.at + time - piece.start;
        if (place >= from && place <= to) found.push({ place, label: clockTime(this.origin + time, false, step < 60) });
      }
    }
    if (found.length) return found;
    const middle = (from + to) / 2;
    return [{ place: middle, label: clockTime(this.origin + this.time(middle), false, true) }];
  }
}

/** The part of the axis that is shown, by all pictures together. */
export class ShownRange {
  /** @param {TimeAxis} axis */
  constructor(axis) {
    this.axis = axis;
    this.from = 0;
    this.to = axis.length;
    this.listeners = [];
  }

  /** @param {() => void} listener */
  watch(listener) {
    this.listeners.push(listener);
  }

  /** @param {number} from @param {number} to */
  set(from, to) {
    const least = Math.min(this.axis.length, Math.max(this.axis.length / 20000, 0.01));
    const span = Math.min(this.axis.length, Math.max(least, to - from));
    this.from = Math.min(Math.max(0, from), this.axis.length - span);
    this.to = this.from + span;
    for (const listener of this.listeners) listener();
  }

  /** @param {number} factor below 1 shows less @param {number} [around] the place that stays where it is */
  zoom(factor, around = (this.from + this.to) / 2) {
    this.set(around - (around - this.from) * factor, around + (this.to - around) * factor);
  }

  /** @param {number} share of what is shown */
  move(share) {
    const by = (this.to - this.from) * share;
    this.set(this.from + by, this.to + by);
  }

  /** @returns {boolean} */
  isWhole() {
    return this.from <= 0 && this.to >= this.axis.length;
  }

  /** @returns {string} */
  words() {
    const [start, end] = [this.axis.time(this.from), this.axis.time(this.to)];
    return `${this.axis.words(start, true)} to ${this.axis.words(end, true)} (${duration(end - start)})`;
  }
}
