import type { Id, Interactions } from '../../lib/index.js';

/** Interactions as plain rows under the caller's ids, in the order in which they are kept. */
export async function triplets<U extends Id, I extends Id>(data: Interactions<U, I>) {
  const [users, items, values, times] = await Promise.all([
    data.userRows.data(),
    data.itemRows.data(),
    data.values.data(),
    data.times?.data(),
  ]);
  return Array.from(users, (user, j) => ({
    user: data.users.at(user),
    item: data.items.at(items[j]),
    value: values[j],
    ...(times && { time: times[j] }),
  }));
}
